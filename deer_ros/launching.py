"""Makes the launch description of a bring-up out of the description of the graph, for `ros2 launch`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from deer_ros import graph, network
from deer_ros.security import enforcing

Action = Any
"""A `launch.action.Action`; the package `launch` exists on ROS 2 machines only."""
RESPAWN_DELAY_S = 1.0


def launch_description(name: str) -> Any:
    """The nodes of bring-up `name` with its arguments and their supervisor; if a vital node ends, everything ends."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    from launch import LaunchDescription  # type: ignore[attr-defined]  # mypy sees our folder of that name

    bringup = graph.BRINGUPS[name]
    packaged = str(graph.CONFIG_FOLDER / f"{name}.yaml")
    arguments: list[Action] = [
        DeclareLaunchArgument("params", default_value=packaged, description="parameter file"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes"),
        DeclareLaunchArgument("network", default_value=network.LOOPBACK, description=network.NETWORK_DESCRIPTION),
        DeclareLaunchArgument("security", default_value="", description="keystore of `deer security`; empty: none"),
    ]
    arguments += [
        DeclareLaunchArgument(
            argument.name, default_value="", description=f"{argument.description}; empty: as in the parameter file"
        )
        for argument in bringup.arguments
    ]
    arguments += [
        DeclareLaunchArgument(remap.name, default_value=remap.topic, description=remap.description)
        for remap in bringup.remaps
    ]
    surroundings = OpaqueFunction(function=_network)
    return LaunchDescription([*arguments, surroundings, OpaqueFunction(function=partial(_nodes, bringup))])


def _network(context: Any) -> list[Action]:
    """Sets the environment variables of the network that was asked for."""
    from launch.actions import SetEnvironmentVariable, UnsetEnvironmentVariable

    given = dict(context.environment)
    wanted = network.environment(context.launch_configurations["network"], given)
    return [
        *(UnsetEnvironmentVariable(name) for name in sorted({*given} - {*wanted})),
        *(SetEnvironmentVariable(name, value) for name, value in wanted.items() if given.get(name) != value),
    ]


def _nodes(bringup: graph.Bringup, context: Any) -> list[Action]:
    """The nodes as processes; the supervisor among them brings the managed ones up."""
    from launch_ros.actions import Node

    actions: list[Action] = []
    for node in bringup.nodes:
        respawn = {"respawn": True, "respawn_delay": RESPAWN_DELAY_S} if node.respawn else {}
        actions += _watched(node, Node(**_settings(bringup, node, context), **respawn))
    settings = _settings(bringup, graph.SUPERVISOR, context)
    settings["parameters"].append({"managed_nodes": list(bringup.managed)})
    return [*actions, *_watched(graph.SUPERVISOR, Node(**settings))]


def _watched(node: graph.NodeDescription, action: Any) -> list[Action]:
    from launch.actions import EmitEvent, RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown

    if not node.vital:
        return [action]
    ended = OnProcessExit(target_action=action, on_exit=[EmitEvent(event=Shutdown(reason=f"{node.name} ended"))])
    return [RegisterEventHandler(ended), action]


def _settings(bringup: graph.Bringup, node: graph.NodeDescription, context: Any) -> dict[str, Any]:
    """What launch_ros wants to know about a node, with the arguments that were given on the command line."""
    given = {
        argument.name: argument.parse(context.launch_configurations[argument.name])
        for argument in bringup.arguments
        if argument.node == node.name and context.launch_configurations[argument.name]
    }
    keystore, namespace = (context.launch_configurations[name] for name in ("security", "namespace"))
    secured = enforcing.environment(Path(keystore)) if keystore else {}
    enclave = enforcing.arguments(Path(keystore), node.name, namespace) if keystore else []
    return {
        "package": "deer_ros",
        "executable": node.executable,
        "name": node.name,
        "namespace": namespace,
        "output": "screen",
        "ros_arguments": enclave,
        "remappings": [
            (remap.topic, context.launch_configurations[remap.name])
            for remap in bringup.remaps
            if context.launch_configurations[remap.name] != remap.topic
        ],
        "additional_env": secured,
        "parameters": [context.launch_configurations["params"], *([given] if given else [])],
    }
