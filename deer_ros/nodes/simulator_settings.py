"""The parameters of the simulator node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from deer_policies.errors import ConfigError
from deer_ros import graph, parameters
from deer_ros.control.gripper_motion import GripperTolerances
from deer_ros.control.imperfections import Imperfections

if TYPE_CHECKING:
    from rclpy.node import Node

LOCKSTEP, REAL_TIME = "lockstep", "real_time"
SIMULATED, SYSTEM = "simulated", "system"


class SimulatorSettings:
    """Declares the parameters of a node and holds those that stay.

    Raises:
        ConfigError: if one is wrong, or some don't go together.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        number, text = parameters.number, parameters.text
        self.scene = text(node, "scene", "D", "scene of PlayTable", ("A", "B", "C", "D"))
        self.seed = parameters.integer(
            node, "seed", 0, 0, 2**62, "of the first episode and of imperfections; services can start other episodes"
        )
        self.mode = text(node, "mode", LOCKSTEP, "how time advances", (LOCKSTEP, REAL_TIME))
        self.clock = text(
            node,
            "clock",
            SIMULATED,
            "of stamps: simulated time, which is published on /clock, or the system's, as a real arm's driver has it",
            (SIMULATED, SYSTEM),
        )
        self.repeat_period_s = number(node, "repeat_period_s", 0.2, 0.01, 10.0, "lockstep: when a frame is sent again")
        self.command_timeout_s = number(
            node, "command_timeout_s", 0.1, 0.01, 10.0, "real time: a twist older than this no longer moves the arm"
        )
        self.arm_interface = text(
            node,
            "arm_interface",
            graph.TWIST,
            "what moves the arm: twists, as for MoveIt Servo, or trajectories, as for a joint_trajectory_controller",
            (graph.TWIST, graph.JOINT_TRAJECTORY),
        )
        self.gripper_interface = text(
            node,
            "gripper_interface",
            graph.FLOAT64,
            "what moves the gripper: a topic with openings in m, or an action of control_msgs",
            (graph.FLOAT64, graph.GRIPPER_COMMAND_ACTION, graph.PARALLEL_GRIPPER_ACTION),
        )
        self.tolerances = GripperTolerances(
            number(node, "gripper_goal_tolerance_m", 0.002, 1e-4, 0.05, "this near to its goal the gripper is there"),
            number(node, "gripper_stall_velocity_m_s", 0.001, 1e-5, 0.1, "slower than this the gripper does not move"),
            number(node, "gripper_stall_timeout_s", 0.5, 0.01, 10.0, "not moving for so long, the gripper is stalled"),
        )
        self.publish_tf = parameters.flag(node, "publish_tf", False, "whether frames are published on /tf")
        self.arm = parameters.arm(node)
        self._check_lockstep()

    def imperfections(self, take: Callable[[Imperfections], None]) -> Imperfections:
        """Declares what can be changed while the node runs; `take` gets what it is changed to."""
        live = parameters.LiveParameters(self._node)
        for item in fields(Imperfections):
            about = item.metadata
            if "choices" in about:
                live.text(item.name, str(item.default), about["about"], about["choices"])
            elif "low" in about:
                live.number(item.name, float(item.default), about["low"], about["high"], about["about"])  # type: ignore[arg-type]
            else:
                live.flag(item.name, bool(item.default), about["about"])
        return live.build(self._checked, take)

    def _checked(self, values: Mapping[str, Any]) -> Imperfections:
        found = Imperfections(**values)
        if self.mode == LOCKSTEP and found.present:
            raise ConfigError(
                f"{', '.join(found.present)} can't be had in lockstep, where the world waits for every message: late "
                "ones would change nothing and lost ones would stop it; set mode to real_time"
            )
        return found

    def _check_lockstep(self) -> None:
        """In lockstep a step answers one command with the stamp of one frame."""
        if self.mode != LOCKSTEP:
            return
        only = {"arm_interface": graph.TWIST, "gripper_interface": graph.FLOAT64, "clock": SIMULATED}
        for name, value in only.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; in lockstep, where each step answers the command that carries "
                    f"the stamp of a frame, it must be {value}; set mode to real_time"
                )
