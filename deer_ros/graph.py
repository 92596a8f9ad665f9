"""The graph of nodes: which nodes a bring-up starts, and the names and qualities of the topics between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deer_policies.errors import ConfigError

CONFIG_FOLDER = Path(__file__).parent / "config"
"""Where the parameter files are; `<bring-up>.yaml` for each bring-up."""

STATIC_IMAGE = "camera/static/image_raw"
GRIPPER_IMAGE = "camera/gripper/image_raw"
STATIC_CAMERA_INFO = "camera/static/camera_info"
GRIPPER_CAMERA_INFO = "camera/gripper/camera_info"
JOINT_STATES = "joint_states"
INSTRUCTION = "instruction"
FOLLOW_INSTRUCTION = "follow_instruction"
SET_BUDGET = "set_budget"
POLICY_GOAL = "policy/goal"
POLICY_INPUT = "policy/input"
POLICY_ACTION = "policy/action"
EXIT_REPORT = "policy/exit_report"
ARM_TWIST = "arm/twist"
ARM_TRAJECTORY = "arm/joint_trajectory"
GRIPPER_COMMAND = "gripper/command"
GRIPPER_ACTION = "gripper/gripper_cmd"
OPERATOR_TWIST = "operator/twist"
OPERATOR_GRIPPER = "operator/gripper"
SAFETY_STATE = "safety/state"
SAFETY_STOP = "safety/stop"
SAFETY_ARM = "safety/arm"
SAFETY_TAKEOVER = "safety/takeover"
E_STOP = "safety/e_stop"
SIMULATOR_RESET = "simulator/reset"
BEGIN_SUBTASK = "simulator/begin_subtask"
SUBTASK_DONE = "subtask_done"
CLOCK = "/clock"
TWIST, JOINT_TRAJECTORY = "twist", "joint_trajectory"
"""Interfaces of an arm's controller: what ARM_TWIST or ARM_TRAJECTORY carries."""
FLOAT64, GRIPPER_COMMAND_ACTION, PARALLEL_GRIPPER_ACTION = "float64", "gripper_command", "parallel_gripper_command"
"""Interfaces of a gripper's controller: GRIPPER_COMMAND, or one of two actions of control_msgs on GRIPPER_ACTION."""
AUDIO_INPUT = "audio/input"
AUDIO_OUTPUT = "audio/output"
TALK = "voice/talk"
HEARING = "voice/hearing"
STOP_WORD = "voice/stop_word"
TRANSCRIPT = "voice/transcript"
VOICE_COMMAND = "voice/command"
SAY = "voice/say"
SPEAKING = "voice/speaking"
TF = "/tf"
TF_STATIC = "/tf_static"
DIAGNOSTICS = "/diagnostics"


@dataclass(frozen=True)
class NodeDescription:
    """One process of a bring-up.

    Attributes:
        name: of the node, and of its section in the parameter file.
        managed: whether it is a lifecycle node that is to be configured and activated.
        vital: whether everything else is stopped when it ends.
        respawn: whether it may be started again when its process ends, the safety node holding the arm meanwhile.
    """

    name: str
    managed: bool = False
    vital: bool = False
    respawn: bool = False

    @property
    def module(self) -> str:
        """Python module that runs it."""
        return f"deer_ros.nodes.{self.name}_node"

    @property
    def executable(self) -> str:
        """Console script that runs it, for `ros2 run` and `ros2 launch`."""
        return f"{self.name}_node"


@dataclass(frozen=True)
class Argument:
    """A parameter that the command line of a bring-up offers by a name of its own."""

    name: str
    node: str
    description: str
    kind: type = str

    def parse(self, text: str) -> str | int | float:
        """The value of what was typed. Raises ConfigError if it is not of the parameter's kind."""
        try:
            value: str | int | float = self.kind(text)
        except ValueError as error:
            raise ConfigError(f"argument {self.name} is {text!r}; it must be of type {self.kind.__name__}") from error
        return value


@dataclass(frozen=True)
class Remap:
    """A topic or action that the command line of a bring-up may give another name, since others decide what it is."""

    name: str
    topic: str
    description: str


@dataclass(frozen=True)
class Bringup:
    """What starts together.

    Attributes:
        description: one line.
        nodes: in the order in which they start.
        arguments: of the command line; everything else is in the parameter file.
        remaps: of the command line, besides ROS's own.
    """

    description: str
    nodes: tuple[NodeDescription, ...]
    arguments: tuple[Argument, ...]
    remaps: tuple[Remap, ...] = ()

    @property
    def managed(self) -> tuple[str, ...]:
        """Names of the managed nodes, in the order in which they are brought up."""
        return tuple(node.name for node in self.nodes if node.managed)


_SAFETY = NodeDescription("safety", managed=True, vital=True)
_POLICY = NodeDescription("policy", managed=True, respawn=True)
SUPERVISOR = NodeDescription("supervisor", vital=True)
"""Brings up the managed nodes of any bring-up under `ros2 launch`; `deer_ros.bringup.Stack` does that by itself."""
_POLICY_ARGUMENTS = (
    Argument("policy", "policy", "name of a bundled policy, or path of a checkpoint"),
    Argument("device", "policy", "where the policy runs: cpu, cuda, ..."),
    Argument("threads", "policy", "threads of the policy on a CPU", int),
)

BRINGUPS: dict[str, Bringup] = {
    "simulation": Bringup(
        "the arm at its play table in simulation",
        (NodeDescription("simulator", managed=True, vital=True), _SAFETY, _POLICY),
        (
            Argument("scene", "simulator", "scene of PlayTable: A, B, C or D"),
            Argument("mode", "simulator", "how time advances: lockstep or real_time"),
            *_POLICY_ARGUMENTS,
        ),
    ),
    "arm": Bringup(
        "safety and policy for a real arm, whose driver and cameras run already",
        (_SAFETY, _POLICY),
        _POLICY_ARGUMENTS,
        (
            Remap("static_image", STATIC_IMAGE, "images of the camera that sees the table (sensor_msgs/Image)"),
            Remap("gripper_image", GRIPPER_IMAGE, "images of the camera on the gripper (sensor_msgs/Image)"),
            Remap("joint_states", JOINT_STATES, "joint states of arm and fingers (sensor_msgs/JointState)"),
            Remap("arm_twist", ARM_TWIST, "what MoveIt Servo takes, as /servo_node/delta_twist_cmds"),
            Remap(
                "arm_trajectory",
                ARM_TRAJECTORY,
                "what a controller takes, as /joint_trajectory_controller/joint_trajectory",
            ),
            Remap("gripper_action", GRIPPER_ACTION, "the gripper's action, as /gripper_controller/gripper_cmd"),
        ),
    ),
    "voice": Bringup(
        "ears and a voice beside one of the others, which runs already",
        tuple(
            NodeDescription(name, managed=True, respawn=True) for name in ("microphone", "stop_word", "speech", "voice")
        ),
        (
            Argument("source", "microphone", "where sound comes from: device, or file"),
            Argument("file", "microphone", "WAV file to play as if it were heard"),
            Argument("output", "voice", "where speech goes: device (and the topic), or topic alone"),
            Argument("listening", "speech", "when it listens: push_to_talk, wake_word or open"),
            Argument("recogniser", "speech", "speech to text: whisper or grammar"),
        ),
    ),
}
"""By name; the launch file and the parameter file of a bring-up are called after it."""
