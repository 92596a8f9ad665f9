"""The description of every node's endpoints, held against the running nodes: neither has one that the other lacks."""

import time
from dataclasses import fields

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, write_wav
from deer_ros import endpoints, graph
from deer_ros.bringup import Stack, StackConfig
from deer_ros.endpoints import Endpoints

pytest.importorskip("rclpy")

_TOPICS = endpoints.ARM_AS_TWIST + endpoints.GRIPPER_AS_TOPIC
BY_PARAMETER = {
    ("simulation", "policy"): endpoints.SIM_TIME,
    ("simulation", "safety"): _TOPICS,
    ("simulation", "simulator"): endpoints.DRIVEN_BY_TOPICS,
    ("arm", "safety"): _TOPICS,
}
"""What the packaged parameter files switch on."""
ACTION_SERVICES = ("send_goal", "cancel_goal", "get_result")
ACTION_TOPICS = ("feedback", "status")


def with_actions_spelled_out(ends):
    """The topics and services that a node's ends are, as ROS tells them: an action is three services and two topics."""
    services = [f"{name}/_action/{part}" for name in ends.executes for part in ACTION_SERVICES]
    calls = [f"{name}/_action/{part}" for name in ends.requests for part in ACTION_SERVICES]
    published = [f"{name}/_action/{part}" for name in ends.executes for part in ACTION_TOPICS]
    subscribed = [f"{name}/_action/{part}" for name in ends.requests for part in ACTION_TOPICS]
    return {
        "publisher": {*ends.publishes, *published},
        "subscriber": {*ends.subscribes, *subscribed},
        "service": {*ends.serves, *services},
        "client": {*ends.calls, *calls},
    }


def running(node, name):
    """What ROS tells of the node of that name."""
    ask = {kind: getattr(node, f"get_{kind}_names_and_types_by_node") for kind in ("publisher", "subscriber")}
    ask |= {kind: getattr(node, f"get_{kind}_names_and_types_by_node") for kind in ("service", "client")}
    return {kind: {topic for topic, _ in tell(name, "/")} for kind, tell in ask.items()}


def settled(node, name, wanted):
    """What runs, once it is what is wanted or discovery has had its time."""
    deadline = time.monotonic() + 5.0
    while (found := running(node, name)) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("bringup", list(graph.BRINGUPS))
def test_running_nodes_have_exactly_the_endpoints_that_are_described(bringup, tiny_checkpoint, tmp_path):
    settings = {"policy": {"policy": str(tiny_checkpoint)}, "safety": {"gripper_output": "float64"}}
    if bringup == "voice":
        write_wav(tmp_path / "quiet.wav", np.zeros(RATE_HZ))
        settings = {
            "microphone": {"source": "file", "file": str(tmp_path / "quiet.wav")},
            "speech": {"recogniser": "grammar", "embedding": "none"},
            "voice": {"engine": "pico", "output": "topic"},
        }
    config = StackConfig(bringup, overrides=settings, log_folder=tmp_path / "logs")
    with Stack(config) as stack:
        for node in config.nodes:
            ends = endpoints.of_node(node) + BY_PARAMETER.get((bringup, node.name), Endpoints())
            wanted = with_actions_spelled_out(ends.resolved("", node.name))
            assert settled(stack.client.node, node.name, wanted) == wanted, node.name
        client = stack.client.node.get_name()
        assert client.startswith(endpoints.CLIENT_NAME)
        described = endpoints.outsiders(graph.BRINGUPS[bringup])[endpoints.OPERATOR]
        may = with_actions_spelled_out(described.resolved("", client))
        for kind, found in running(stack.client.node, client).items():
            assert found <= may[kind], kind


def test_what_parameters_add_is_described():
    """The test above adds it by hand; permissions must have it as well."""
    for (bringup, name), ends in BY_PARAMETER.items():
        (node,) = (node for node in graph.BRINGUPS[bringup].nodes if node.name == name)
        allowed = endpoints.allowed(node)
        for at in fields(Endpoints):
            assert set(getattr(ends, at.name)) <= set(getattr(allowed, at.name))


def test_a_node_that_is_not_described_is_named():
    with pytest.raises(ConfigError, match="'spectator' are not described"):
        endpoints.of_node(graph.NodeDescription("spectator"))


def test_names_are_resolved_as_ros_does():
    ends = Endpoints(publishes=("a/b", "~/c", "/d")).resolved("/robot", "policy")
    assert ends.publishes == ("/robot/a/b", "/robot/policy/c", "/d")
    assert Endpoints(serves=("a", "~/c")).resolved("", "policy").serves == ("/a", "/policy/c")
