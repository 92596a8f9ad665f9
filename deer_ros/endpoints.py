"""What each node of the graph publishes, subscribes, serves and calls, hidden endpoints included.

Permissions are made from it (`deer_ros.security`); `tests/ros/test_endpoints.py` holds it against the running nodes.
Names are relative to the namespace, private (`~/`, below the node's own name) or absolute, as rclpy takes them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from deer_policies.errors import ConfigError
from deer_ros import graph

ROSOUT = "/rosout"
PARAMETER_EVENTS = "/parameter_events"


@dataclass(frozen=True)
class Endpoints:
    """The ends of topics, services and actions that a node has.

    Attributes:
        publishes, subscribes: topics.
        serves, calls: services, as a server and as a client.
        executes, requests: actions, as a server and as a client.
    """

    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    executes: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()

    def __add__(self, other: Endpoints) -> Endpoints:
        """Those of both, each once."""
        return Endpoints(
            *(tuple(dict.fromkeys(getattr(self, at.name) + getattr(other, at.name))) for at in fields(self))
        )

    def resolved(self, namespace: str, node: str) -> Endpoints:
        """The same with absolute names, for a node of that name in that namespace ('' or '/robot')."""
        return Endpoints(
            *(tuple(absolute(name, namespace, node) for name in getattr(self, at.name)) for at in fields(self))
        )


EVERY_NODE = Endpoints(
    publishes=(ROSOUT, PARAMETER_EVENTS),
    serves=(
        "~/describe_parameters",
        "~/get_parameter_types",
        "~/get_parameters",
        "~/get_type_description",
        "~/list_parameters",
        "~/set_parameters",
        "~/set_parameters_atomically",
    ),
)
"""What rclpy gives each node."""

MANAGED_NODE = Endpoints(
    publishes=("~/transition_event",),
    serves=(
        "~/change_state",
        "~/get_available_states",
        "~/get_available_transitions",
        "~/get_state",
        "~/get_transition_graph",
    ),
)
"""What rclpy gives each lifecycle node, besides."""

SIM_TIME = Endpoints(subscribes=(graph.CLOCK,))
"""What the parameter use_sim_time gives a node."""

NODES: dict[str, Endpoints] = {
    "simulator": Endpoints(
        publishes=(
            graph.STATIC_IMAGE,
            graph.STATIC_CAMERA_INFO,
            graph.GRIPPER_IMAGE,
            graph.GRIPPER_CAMERA_INFO,
            graph.JOINT_STATES,
            graph.CLOCK,
            graph.SUBTASK_DONE,
            graph.DIAGNOSTICS,
        ),
        serves=(graph.SIMULATOR_RESET, graph.BEGIN_SUBTASK),
    ),
    "safety": Endpoints(
        publishes=(graph.SAFETY_STATE, graph.DIAGNOSTICS),
        subscribes=(
            graph.POLICY_ACTION,
            graph.JOINT_STATES,
            graph.STATIC_IMAGE,
            graph.GRIPPER_IMAGE,
            graph.OPERATOR_TWIST,
            graph.OPERATOR_GRIPPER,
            graph.E_STOP,
        ),
        serves=(graph.SAFETY_STOP, graph.SAFETY_ARM, graph.SAFETY_TAKEOVER),
    ),
    "supervisor": Endpoints(publishes=(graph.DIAGNOSTICS,)),
    "microphone": Endpoints(publishes=(graph.AUDIO_INPUT, graph.DIAGNOSTICS)),
    "stop_word": Endpoints(
        publishes=(graph.STOP_WORD, graph.HEARING, graph.DIAGNOSTICS),
        subscribes=(graph.AUDIO_INPUT,),
        calls=(graph.SAFETY_STOP,),
    ),
    "speech": Endpoints(
        publishes=(graph.TRANSCRIPT, graph.VOICE_COMMAND, graph.SAY, graph.DIAGNOSTICS),
        subscribes=(
            graph.AUDIO_INPUT,
            graph.TALK,
            graph.SPEAKING,
            graph.HEARING,
            graph.SAFETY_STATE,
            graph.EXIT_REPORT,
        ),
        calls=(graph.SAFETY_STOP, graph.SET_BUDGET, graph.BEGIN_SUBTASK),
        requests=(graph.FOLLOW_INSTRUCTION,),
    ),
    "voice": Endpoints(
        publishes=(graph.AUDIO_OUTPUT, graph.SPEAKING, graph.DIAGNOSTICS),
        subscribes=(graph.SAY,),
    ),
    "policy": Endpoints(
        publishes=(
            graph.POLICY_GOAL,
            graph.POLICY_INPUT,
            graph.POLICY_ACTION,
            graph.EXIT_REPORT,
            graph.DIAGNOSTICS,
        ),
        subscribes=(
            graph.STATIC_IMAGE,
            graph.GRIPPER_IMAGE,
            graph.JOINT_STATES,
            graph.INSTRUCTION,
            graph.SAFETY_STATE,
            graph.SUBTASK_DONE,
        ),
        serves=(graph.SET_BUDGET,),
        executes=(graph.FOLLOW_INSTRUCTION,),
    ),
}
"""What the code of each node makes, whatever its parameters are, once it is active; by the node's name."""

ARM_AS_TWIST = Endpoints(publishes=(graph.ARM_TWIST,))
ARM_AS_TRAJECTORY = Endpoints(publishes=(graph.ARM_TRAJECTORY,))
GRIPPER_AS_TOPIC = Endpoints(publishes=(graph.GRIPPER_COMMAND,))
GRIPPER_AS_ACTION = Endpoints(requests=(graph.GRIPPER_ACTION,))
"""What the parameters arm_output and gripper_output give the safety node."""

DRIVEN_BY_TOPICS = Endpoints(subscribes=(graph.ARM_TWIST, graph.GRIPPER_COMMAND))
DRIVEN_OTHERWISE = Endpoints(
    publishes=(graph.TF, graph.TF_STATIC), subscribes=(graph.ARM_TRAJECTORY,), executes=(graph.GRIPPER_ACTION,)
)
"""What arm_interface, gripper_interface and publish_tf give the simulator."""

BY_PARAMETER: dict[str, Endpoints] = {
    "simulator": SIM_TIME + DRIVEN_BY_TOPICS + DRIVEN_OTHERWISE,
    "safety": SIM_TIME + ARM_AS_TWIST + ARM_AS_TRAJECTORY + GRIPPER_AS_TOPIC + GRIPPER_AS_ACTION,
    **dict.fromkeys(("policy", "supervisor", "microphone", "stop_word", "speech", "voice"), SIM_TIME),
}
"""What a node makes besides if its parameters say so; it may, so permissions allow it."""

OPERATOR, OBSERVER, DRIVER = "operator", "recorder", "driver"
_SEEN = (
    graph.STATIC_IMAGE,
    graph.GRIPPER_IMAGE,
    graph.JOINT_STATES,
    graph.POLICY_GOAL,
    graph.POLICY_INPUT,
    graph.POLICY_ACTION,
    graph.EXIT_REPORT,
    graph.SAFETY_STATE,
    graph.SUBTASK_DONE,
    graph.DIAGNOSTICS,
    graph.CLOCK,
    graph.STOP_WORD,
    graph.HEARING,
    graph.TRANSCRIPT,
    graph.VOICE_COMMAND,
    graph.SAY,
    graph.SPEAKING,
    graph.AUDIO_OUTPUT,
)
OUTSIDERS: dict[str, Endpoints] = {
    OPERATOR: Endpoints(
        publishes=(
            graph.INSTRUCTION,
            graph.OPERATOR_TWIST,
            graph.OPERATOR_GRIPPER,
            graph.E_STOP,
            graph.AUDIO_INPUT,
            graph.TALK,
        ),
        subscribes=_SEEN,
        calls=(
            graph.SET_BUDGET,
            graph.SAFETY_STOP,
            graph.SAFETY_ARM,
            graph.SAFETY_TAKEOVER,
            graph.SIMULATOR_RESET,
            graph.BEGIN_SUBTASK,
        ),
        requests=(graph.FOLLOW_INSTRUCTION,),
    ),
    OBSERVER: Endpoints(
        subscribes=(
            *_SEEN,
            graph.INSTRUCTION,
            graph.AUDIO_INPUT,
            graph.TALK,
            graph.ARM_TWIST,
            graph.ARM_TRAJECTORY,
            graph.GRIPPER_COMMAND,
            graph.OPERATOR_TWIST,
            graph.OPERATOR_GRIPPER,
            graph.E_STOP,
            ROSOUT,
            PARAMETER_EVENTS,
        )
    ),
    DRIVER: Endpoints(
        publishes=(graph.STATIC_IMAGE, graph.GRIPPER_IMAGE, graph.JOINT_STATES, graph.SUBTASK_DONE),
        subscribes=(graph.ARM_TWIST, graph.ARM_TRAJECTORY, graph.GRIPPER_COMMAND),
        executes=(graph.GRIPPER_ACTION,),
    ),
}
"""Who talks to the graph from outside: who gives instructions (`StackClient`), who only listens, and on a real arm
the driver and the cameras."""

CLIENT_NAME = "stack_client"
"""Each `StackClient` is a node of this name and a random ending."""


def of_node(node: graph.NodeDescription) -> Endpoints:
    """All endpoints of an active node, without those that its parameters add. Raises ConfigError for an unknown one."""
    if node.name not in NODES:
        raise ConfigError(f"endpoints of node {node.name!r} are not described; add them to deer_ros/endpoints.py")
    return NODES[node.name] + EVERY_NODE + (MANAGED_NODE if node.managed else Endpoints())


def allowed(node: graph.NodeDescription) -> Endpoints:
    """All endpoints that a node may ever have, with any parameters."""
    return of_node(node) + BY_PARAMETER.get(node.name, Endpoints())


def bringing_up(bringup: graph.Bringup) -> Endpoints:
    """What whoever brings up the managed nodes of a bring-up needs (`deer_ros.supervision`)."""
    calls = ("change_state", "get_state")
    return Endpoints(
        subscribes=(graph.SAFETY_STATE,),
        calls=tuple(f"{name}/{call}" for name in bringup.managed for call in calls),
    )


def outsiders(bringup: graph.Bringup) -> dict[str, Endpoints]:
    """All endpoints of each outsider of a bring-up; the operator may also bring its managed nodes up and down."""
    simulated = any(node.name == "simulator" for node in bringup.nodes)
    found = {name: ends + EVERY_NODE for name, ends in OUTSIDERS.items() if not (simulated and name == DRIVER)}
    return {**found, OPERATOR: found[OPERATOR] + bringing_up(bringup)}


def absolute(name: str, namespace: str, node: str) -> str:
    """The name as it is on the wire, from '/' on."""
    if name.startswith("/"):
        return name
    return f"{namespace}/{node}{name[1:]}" if name.startswith("~") else f"{namespace}/{name}"
