"""How commands reach the simulated arm: twists as MoveIt Servo takes them, or trajectories as ros2_control does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from geometry_msgs.msg import TwistStamped
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from deer_policies.errors import ConfigError, DeerError
from deer_ros import graph
from deer_ros.control.action_codec import Twist, action_from_twist
from deer_ros.control.arm import ArmParameters
from deer_ros.control.trajectory_follower import JointTrajectory, TrajectoryFollower
from deer_ros.conversions import stamp_to_ns
from deer_ros.nodes.delivery import Delivery
from deer_ros.quality import COMMANDS, NEWEST

if TYPE_CHECKING:
    from rclpy.node import Node


@dataclass(frozen=True)
class ArmDrive:
    """What the arm does in one control step: a step of the tool (6,) as in a relative action, or joints (7,) rad."""

    pose_step: np.ndarray | None = None
    joints_rad: np.ndarray | None = None


class ArmInput(Protocol):
    """What takes the arm's commands."""

    def drive(self, joints_rad: np.ndarray, time_s: float) -> ArmDrive:
        """What the arm does in the control step that ends at `time_s` of the simulator's stamps, being at `joints_rad`.

        Raises:
            ConfigError: if the command can't be carried out where the arm is.
        """

    def hold(self) -> None:
        """Forgets the command."""

    def close(self) -> None:
        """Takes no more."""


class TwistInput:
    """Velocities of the tool centre point in m/s and rad/s, in the axes of the arm's base.

    Args:
        node: that the subscription belongs to.
        arm: which arm.
        rate_hz: control steps a second.
        timeout_s: a command that came in longer ago no longer moves the arm (Servo's incoming_command_timeout);
            infinite in lockstep, where no command may be passed over.
        stamped: whether stamps older than that are refused on top, as Servo does; they are of the system's clock.
        delivery: the line that commands come on.
        taken: called with the stamp (ns) of each command that is taken.
        refused: called with the reason why a command was not.
    """

    def __init__(
        self,
        node: Node,
        arm: ArmParameters,
        rate_hz: float,
        timeout_s: float,
        stamped: bool,
        delivery: Delivery,
        taken: Callable[[int], None],
        refused: Callable[[str], None],
    ) -> None:
        self._node = node
        self._arm = arm
        self._rate_hz = rate_hz
        self._timeout_s = timeout_s
        self._stamped = stamped
        self._taken = taken
        self._refused = refused
        self._command: tuple[Twist, float] | None = None
        self._halted_at: np.ndarray | None = None
        self._subscription = node.create_subscription(
            TwistStamped,
            graph.ARM_TWIST,
            lambda message: delivery.send(lambda: self._take(message)),
            NEWEST if np.isfinite(timeout_s) else COMMANDS,
        )

    def drive(self, joints_rad: np.ndarray, time_s: float) -> ArmDrive:
        """Undoes the safety node's conversion at the orientation that it had, from the same joint angles. (The pose in
        robot_obs is CALVIN's, which lags behind the joints by one physics step.)"""
        if self._command is None or time.monotonic() - self._command[1] > self._timeout_s:
            return self._halted(joints_rad)
        if np.isfinite(self._timeout_s) and self._command[0].still:
            return self._halted(joints_rad)
        self._halted_at = None
        _, euler = self._arm.geometry.tcp_pose(joints_rad)
        return ArmDrive(pose_step=action_from_twist(self._command[0], euler, self._rate_hz))

    def hold(self) -> None:
        """Forgets the command, and where the arm was halted."""
        self._command = self._halted_at = None

    def close(self) -> None:
        """Takes no more."""
        self._node.destroy_subscription(self._subscription)

    def _halted(self, joints_rad: np.ndarray) -> ArmDrive:
        """The arm stays where it was when it was halted; in lockstep, CALVIN's target is kept instead."""
        if not np.isfinite(self._timeout_s):
            return ArmDrive(pose_step=np.zeros(6))
        if self._halted_at is None:
            self._halted_at = np.array(joints_rad)
        return ArmDrive(joints_rad=self._halted_at)

    def _take(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        try:
            self._check_header(message)
            twist = Twist(np.array((linear.x, linear.y, linear.z)), np.array((angular.x, angular.y, angular.z)))
        except DeerError as error:
            self._refused(str(error))
            return
        self._command = (twist, time.monotonic())
        self._taken(stamp_to_ns(message.header.stamp))

    def _check_header(self, message: TwistStamped) -> None:
        frame = message.header.frame_id
        if frame != self._arm.base_frame:
            raise ConfigError(f"twist in frame {frame[:60]!r} is refused: this arm takes {self._arm.base_frame!r} only")
        if self._stamped:
            age_s = (time.time_ns() - stamp_to_ns(message.header.stamp)) * 1e-9
            if age_s >= self._timeout_s:
                raise ConfigError(
                    f"twists with stamps {self._timeout_s:g} s old or older are stale and are refused; stamp them when "
                    "they are sent"
                )


class TrajectoryInput:
    """Trajectories of the arm's joints; the newest is followed to its last point, and held there.

    Args:
        node: that the subscription belongs to.
        arm: which arm.
        delivery: the line that commands come on.
        present: the present time of the simulator's stamps in s, and the joints (7,) rad.
        refused: called with the reason why a trajectory was not taken.
    """

    def __init__(
        self,
        node: Node,
        arm: ArmParameters,
        delivery: Delivery,
        present: Callable[[], tuple[float, np.ndarray]],
        refused: Callable[[str], None],
    ) -> None:
        self._node = node
        self._arm = arm
        self._present = present
        self._refused = refused
        self._follower = TrajectoryFollower()
        self._subscription = node.create_subscription(
            JointTrajectoryMessage,
            graph.ARM_TRAJECTORY,
            lambda message: delivery.send(lambda: self._take(message)),
            NEWEST,
        )

    def drive(self, joints_rad: np.ndarray, time_s: float) -> ArmDrive:
        """The trajectory at the end of the step; without one, the arm is not driven anywhere else."""
        joints = self._follower.sample(time_s)
        return ArmDrive(pose_step=np.zeros(6)) if joints is None else ArmDrive(joints_rad=joints)

    def hold(self) -> None:
        """Forgets the trajectory."""
        self._follower.clear()

    def close(self) -> None:
        """Takes no more."""
        self._node.destroy_subscription(self._subscription)

    def _take(self, message: Any) -> None:
        now_s, joints_rad = self._present()
        try:
            trajectory = trajectory_from_message(message, self._arm.joint_names)
            start_s = stamp_to_ns(message.header.stamp) * 1e-9 or now_s
            self._follower.take(trajectory, start_s, now_s, joints_rad)
        except DeerError as error:
            self._refused(str(error))


def trajectory_from_message(message: Any, joint_names: tuple[str, ...]) -> JointTrajectory:
    """The trajectory in the order of `joint_names`, with velocities if every point has them.

    Raises:
        ConfigError: if the joints are others, or the points are not complete.
    """
    if sorted(message.joint_names) != sorted(joint_names):
        raise ConfigError(f"trajectory for joints {list(message.joint_names)} is refused; they must be {joint_names}")
    order = [list(message.joint_names).index(name) for name in joint_names]
    for index, point in enumerate(message.points):
        sizes = len(point.positions), len(point.velocities)
        if sizes[0] != len(order) or sizes[1] not in (0, len(order)):
            raise ConfigError(
                f"point {index} of the trajectory has {sizes[0]} positions and {sizes[1]} velocities; it must have "
                f"{len(order)} positions and as many velocities or none"
            )
    points = message.points
    times = np.array([point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in points])
    smooth = len(points) > 0 and all(len(point.velocities) for point in points)
    positions = np.array([point.positions for point in points]).reshape(len(points), len(order))[:, order]
    return JointTrajectory(
        times, positions, np.array([point.velocities for point in points])[:, order] if smooth else None
    )
