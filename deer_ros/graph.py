"""The graph of nodes: which nodes a bring-up starts, and the names and qualities of the topics between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG_FOLDER = Path(__file__).parent / "config"
"""Where the parameter files are; `<bring-up>.yaml` for each bring-up."""

STATIC_IMAGE = "camera/static/image_raw"
GRIPPER_IMAGE = "camera/gripper/image_raw"
JOINT_STATES = "joint_states"
INSTRUCTION = "instruction"
FOLLOW_INSTRUCTION = "follow_instruction"
SET_BUDGET = "set_budget"
POLICY_ACTION = "policy/action"
EXIT_REPORT = "policy/exit_report"
ARM_TWIST = "arm/twist"
GRIPPER_COMMAND = "gripper/command"
SAFETY_STATE = "safety/state"
SAFETY_STOP = "safety/stop"
SAFETY_ARM = "safety/arm"
SIMULATOR_RESET = "simulator/reset"
BEGIN_SUBTASK = "simulator/begin_subtask"
SUBTASK_DONE = "subtask_done"
CLOCK = "/clock"
DIAGNOSTICS = "/diagnostics"


@dataclass(frozen=True)
class NodeDescription:
    """One process of a bring-up.

    Attributes:
        name: of the node, and of its section in the parameter file.
        managed: whether it is a lifecycle node that is to be configured and activated.
        vital: whether everything else is stopped when it ends.
    """

    name: str
    managed: bool = False
    vital: bool = False

    @property
    def module(self) -> str:
        """Python module that runs it."""
        return f"deer_ros.nodes.{self.name}_node"

    @property
    def executable(self) -> str:
        """Console script that runs it, for `ros2 run` and `ros2 launch`."""
        return f"{self.name}_node"


BRINGUPS: dict[str, tuple[NodeDescription, ...]] = {
    "simulation": (
        NodeDescription("simulator", vital=True),
        NodeDescription("safety", vital=True),
        NodeDescription("policy", managed=True),
    ),
    "arm": (
        NodeDescription("safety", vital=True),
        NodeDescription("policy", managed=True),
    ),
}
"""Nodes of each bring-up in the order in which they start."""
