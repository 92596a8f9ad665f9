"""How commands reach the arm: a twist for MoveIt Servo, or a joint trajectory for a joint_trajectory_controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from deer_ros import graph
from deer_ros.control.action_codec import Twist
from deer_ros.control.joint_motion import JointMotion
from deer_ros.conversions import seconds_to_duration
from deer_ros.quality import COMMANDS

if TYPE_CHECKING:
    from rclpy.node import Node

AHEAD_PERIODS = 3
"""A trajectory tells so many periods of motion, so that a late one does not interrupt it, and then comes to rest."""


@dataclass(frozen=True)
class ArmCommand:
    """What the arm is to do for a period.

    Attributes:
        twist: of the tool centre point.
        joints_rad: (7,) measured.
        period_s: how long until the next command.
        stamp: of the command.
    """

    twist: Twist
    joints_rad: np.ndarray
    period_s: float
    stamp: Time


class ArmOutput(Protocol):
    """An interface of arm controllers."""

    def send(self, command: ArmCommand) -> None:
        """Sends the command. Raises ConfigError, and sends standstill, if the arm can't do it."""
        ...

    def close(self) -> None:
        """Gives back the publisher."""
        ...


class TwistOutput:
    """geometry_msgs/TwistStamped as MoveIt Servo takes it with `command_in_type: speed_units`.

    Linear velocity in m/s and angular velocity in rad/s of the tool centre point, in the axes of the arm's base frame.
    """

    def __init__(self, node: Node, base_frame: str) -> None:
        self._node = node
        self._base_frame = base_frame
        self._publisher = node.create_publisher(TwistStamped, graph.ARM_TWIST, COMMANDS)

    def send(self, command: ArmCommand) -> None:
        """Publishes the twist as it is."""
        message = TwistStamped()
        message.header.stamp = command.stamp
        message.header.frame_id = self._base_frame
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z = command.twist.linear.tolist()
        angular.x, angular.y, angular.z = command.twist.angular.tolist()
        self._publisher.publish(message)

    def close(self) -> None:
        """Gives back the publisher."""
        self._node.destroy_publisher(self._publisher)


class TrajectoryOutput:
    """trajectory_msgs/JointTrajectory as joint_trajectory_controller takes it on its topic.

    Each message has two points: where the joints are after the next periods, with their speeds, and where they come to
    rest after that. So the arm stops by itself when messages cease. It begins at the measured joints each time motion
    begins.
    """

    def __init__(self, node: Node, motion: JointMotion, joint_names: tuple[str, ...], rest_s: float) -> None:
        self._node = node
        self._motion = motion
        self._joint_names = joint_names
        self._rest_s = rest_s
        self._moving = False
        self._publisher = node.create_publisher(JointTrajectory, graph.ARM_TRAJECTORY, COMMANDS)

    def send(self, command: ArmCommand) -> None:
        """Publishes where the twist leads. Raises ConfigError, after telling the arm to rest, if it does not follow."""
        moves = bool(command.twist.linear.any() or command.twist.angular.any())
        if moves and not self._moving:
            self._motion.seed(command.joints_rad)
        if not moves and not self._moving:
            return
        self._moving = moves
        try:
            self._motion.check_tracking(command.joints_rad)
        except Exception:
            self._motion.seed(command.joints_rad)
            self._moving = False
            self._publish(np.zeros(len(self._joint_names)), command)
            raise
        self._motion.advance(command.twist, command.period_s)
        self._publish(self._motion.speeds_rad_s, command)

    def close(self) -> None:
        """Gives back the publisher."""
        self._node.destroy_publisher(self._publisher)

    def _publish(self, speeds_rad_s: np.ndarray, command: ArmCommand) -> None:
        """A zero stamp means 'from now on' to the controller."""
        ahead_s = AHEAD_PERIODS * command.period_s
        near = self._motion.joints_rad + speeds_rad_s * (ahead_s - command.period_s)
        message = JointTrajectory(joint_names=list(self._joint_names))
        message.points = [
            _point(near, speeds_rad_s, ahead_s),
            _point(near + speeds_rad_s * self._rest_s / 2, np.zeros_like(speeds_rad_s), ahead_s + self._rest_s),
        ]
        self._publisher.publish(message)


def _point(positions_rad: np.ndarray, speeds_rad_s: np.ndarray, after_s: float) -> JointTrajectoryPoint:
    return JointTrajectoryPoint(
        positions=positions_rad.tolist(), velocities=speeds_rad_s.tolist(), time_from_start=seconds_to_duration(after_s)
    )
