"""The safety node's parameters, declared with units and ranges; the defaults suit an arm with people near it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from deer_ros import graph, parameters
from deer_ros.control.arm import ArmParameters
from deer_ros.control.gate import GateSettings
from deer_ros.control.joint_motion import JointLimits
from deer_ros.control.safety import SafetyLimits
from deer_ros.control.watchdog import WatchdogSettings
from deer_ros.parameters import LiveParameters

if TYPE_CHECKING:
    from rclpy.node import Node

OBSERVATION, NOW = "observation", "now"


@dataclass(frozen=True)
class SafetyParameters:
    """Those that are read once, when the node is made.

    Attributes:
        arm: which arm it is.
        gate: how the gate runs.
        brings_armed: whether activation arms.
        stamping: OBSERVATION or NOW.
        command_rate_hz: of commands to the arm between actions.
        arm_output, gripper_output: through which interfaces commands go out.
        gripper_effort_n: of the gripper's actions.
        gripper_scale: factor on what the gripper's actions are told: the opening, and a finger's half of it.
        joints: limits of joint trajectories.
    """

    arm: ArmParameters
    gate: GateSettings
    brings_armed: bool
    stamping: str
    command_rate_hz: float
    arm_output: str
    gripper_output: str
    gripper_effort_n: float
    gripper_scale: float
    joints: JointLimits


@dataclass(frozen=True)
class Limits:
    """Those that may be changed while the node runs."""

    motion: SafetyLimits
    watchdog: WatchdogSettings


def declare(node: Node) -> SafetyParameters:
    """Raises ConfigError for what can't work."""
    number, text = parameters.number, parameters.text
    stamping = text(
        node,
        "command_stamp",
        NOW,
        "stamp of commands: now (arm controllers reject old ones) or the observation's (simulator in lockstep)",
        (NOW, OBSERVATION),
    )
    gate = GateSettings(
        control_rate_hz=number(node, "control_rate_hz", 30.0, 1.0, 1000.0, "rate of the policy's actions"),
        hold_duration_s=number(node, "hold_duration_s", 0.5, 0.0, 60.0, "how long standstill is repeated"),
        brake_time_s=number(node, "brake_time_s", 0.05, 0.0, 0.1, "from motion to standstill when it holds"),
        max_action_rate_hz=number(node, "max_action_rate_hz", 60.0, 1.0, 1000.0, "faster actions are refused: hold"),
        operator_scale=number(node, "operator_scale", 0.5, 0.01, 1.0, "share of the speed limits for an operator"),
        per_action=stamping == OBSERVATION,
    )
    return SafetyParameters(
        arm=parameters.arm(node),
        gate=gate,
        brings_armed=parameters.flag(node, "arm_on_start", False, "whether commands pass without safety/arm first"),
        stamping=stamping,
        command_rate_hz=number(node, "command_rate_hz", 100.0, 10.0, 1000.0, "rate of commands between actions"),
        arm_output=text(
            node,
            "arm_output",
            graph.TWIST,
            f"{graph.TWIST}: TwistStamped on {graph.ARM_TWIST} (MoveIt Servo, m/s and rad/s in the base frame); "
            f"{graph.JOINT_TRAJECTORY}: JointTrajectory on {graph.ARM_TRAJECTORY} (joint_trajectory_controller)",
            (graph.TWIST, graph.JOINT_TRAJECTORY),
        ),
        gripper_output=text(
            node,
            "gripper_output",
            graph.FLOAT64,
            f"{graph.FLOAT64}: std_msgs/Float64 on {graph.GRIPPER_COMMAND}, opening in m; the others: the action "
            f"of that name of control_msgs on {graph.GRIPPER_ACTION}",
            (graph.FLOAT64, graph.GRIPPER_COMMAND_ACTION, graph.PARALLEL_GRIPPER_ACTION),
        ),
        gripper_effort_n=number(node, "gripper_effort_n", 40.0, 0.1, 1000.0, "greatest force of the gripper's actions"),
        gripper_scale=number(
            node, "gripper_scale", 1.0, -1e3, 1e3, "factor on the position in the gripper's actions, for other units"
        ),
        joints=_declare_joints(node),
    )


def declare_limits(node: Node, take: Callable[[Limits], None]) -> Limits:
    """The limits as they are now; `take` gets those of each later change. Raises ConfigError for what can't work."""
    live = LiveParameters(node)
    number = live.number
    live.numbers("workspace_low_m", (-0.5, -0.5, 0.35), "lowest x y z of the tool centre point")
    live.numbers("workspace_high_m", (0.5, 0.3, 0.9), "highest x y z of the tool centre point")
    number("linear_speed_m_s", 0.25, 0.001, 2.0, "greatest speed")
    number("angular_speed_rad_s", 0.8, 0.001, 5.0, "greatest rate of turn")
    number("linear_acceleration_m_s2", 2.0, 0.001, 100.0, "greatest acceleration")
    number("angular_acceleration_rad_s2", 6.0, 0.001, 200.0, "greatest angular acceleration")
    number("linear_jerk_m_s3", 40.0, 0.01, 1e4, "greatest change of acceleration in a second")
    number("angular_jerk_rad_s3", 120.0, 0.01, 3e4, "greatest change of angular acceleration in a second")
    number("gripper_closed_m", 0.0, 0.0, 0.2, "opening that 'close' asks for")
    number("gripper_open_m", 0.08, 0.0, 0.2, "opening that 'open' asks for")
    number("gripper_rate_hz", 2.0, 0.01, 1000.0, "changes of the gripper's command in a second")
    number("command_timeout_s", 0.1, 0.01, 10.0, "older commands are stale: hold")
    number("joint_timeout_s", 0.1, 0.01, 10.0, "older joint states are stale: hold")
    number("image_timeout_s", 0.2, 0.01, 10.0, "older images are stale: hold")
    return live.build(_limits, take)


def _limits(values: Mapping[str, Any]) -> Limits:
    motion = {item.name: values[item.name] for item in fields(SafetyLimits)}
    images = dict.fromkeys((graph.STATIC_IMAGE, graph.GRIPPER_IMAGE), values["image_timeout_s"])
    return Limits(
        SafetyLimits(**motion), WatchdogSettings(values["command_timeout_s"], values["joint_timeout_s"], images)
    )


def _declare_joints(node: Node) -> JointLimits:
    """The defaults are the Panda's (franka_description)."""
    numbers = parameters.numbers
    high = (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973)
    low = (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973)
    return JointLimits(
        low_rad=numbers(node, "joint_low_rad", low, "lowest joint angles, joint trajectories only"),
        high_rad=numbers(node, "joint_high_rad", high, "highest joint angles, joint trajectories only"),
        speed_rad_s=numbers(
            node, "joint_speed_rad_s", (1.0,) * 7, "greatest joint speeds, joint trajectories only; the Panda can 2.1"
        ),
        tracking_error_rad=parameters.number(
            node, "joint_tracking_rad", 0.1, 0.001, 1.0, "joint trajectories only: an arm further off its command: hold"
        ),
    )
