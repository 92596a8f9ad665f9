"""How commands reach the simulated gripper: a topic, or an action of control_msgs as ros2_control serves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.control.gripper_motion import GripperMotion, GripperState, GripperTolerances
from deer_ros.nodes.delivery import Delivery
from deer_ros.quality import NEWEST

if TYPE_CHECKING:
    from rclpy.node import Node


class GripperInput(Protocol):
    """What takes the gripper's commands.

    Attributes:
        target_m: the opening that it is driven to now.
    """

    target_m: float

    def observe(self, opening_m: float, time_s: float) -> None:
        """Takes the opening after each control step; `time_s` is that of the simulator's stamps."""

    def hold(self, opening_m: float) -> None:
        """Ends what is under way; the gripper is driven to `opening_m` from now on."""

    def close(self) -> None:
        """Takes no more."""


class TopicGripper:
    """Openings in m as std_msgs/Float64.

    Args:
        node: that the subscription belongs to.
        delivery: the line that commands come on.
        refused: called with the reason why a command was not taken.
    """

    def __init__(self, node: Node, delivery: Delivery, refused: Callable[[str], None]) -> None:
        from std_msgs.msg import Float64

        self.target_m = 0.0
        self._node = node
        self._refused = refused
        self._subscription = node.create_subscription(
            Float64, graph.GRIPPER_COMMAND, lambda message: delivery.send(lambda: self._take(message.data)), NEWEST
        )

    def observe(self, opening_m: float, time_s: float) -> None:
        """Nobody is told."""

    def hold(self, opening_m: float) -> None:
        """Drives to `opening_m` until the next command."""
        self.target_m = opening_m

    def close(self) -> None:
        """Takes no more."""
        self._node.destroy_subscription(self._subscription)

    def _take(self, opening_m: float) -> None:
        try:
            self.target_m = GripperMotion(opening_m, GripperTolerances()).target_m
        except ConfigError as error:
            self._refused(str(error))


class _Goal:
    """An accepted goal: where it is to go, and how its client is told."""

    def __init__(self, handle: Any, motion: GripperMotion) -> None:
        from rclpy.task import Future

        self.handle = handle
        self.motion = motion
        self.end: Any = Future()


class ActionGripper:
    """Server of control_msgs/GripperCommand or control_msgs/ParallelGripperCommand; the newest goal replaces others.

    A stall ends a goal with success, as with ros2_control's `allow_stalling`: that is how a gripper holds a block.
    Efforts are neither limited nor measured, and are told as 0. A goal that the line loses is never begun.

    Args:
        node: that the server belongs to.
        kind: graph.GRIPPER_COMMAND_ACTION or graph.PARALLEL_GRIPPER_ACTION.
        finger_joint_names: of the two fingers; the opening is the sum of their positions.
        tolerances: when a goal is reached or stalled.
        accepts: whether goals are taken at present.
        delivery: the line that commands come on: an accepted goal takes effect when it has come through.

    Raises:
        ConfigError: if control_msgs is not installed.
    """

    def __init__(
        self,
        node: Node,
        kind: str,
        finger_joint_names: tuple[str, ...],
        tolerances: GripperTolerances,
        accepts: Callable[[], bool],
        delivery: Delivery,
    ) -> None:
        try:
            from control_msgs.action import GripperCommand, ParallelGripperCommand
        except ImportError as error:
            raise ConfigError(
                f"gripper_interface {kind} needs the ROS 2 package control_msgs (ros-<distribution>-control-msgs); "
                f"without it, gripper_interface can be {graph.FLOAT64}"
            ) from error
        from rclpy.action import ActionServer

        self.target_m = 0.0
        self._node = node
        self._parallel = kind == graph.PARALLEL_GRIPPER_ACTION
        self._names = finger_joint_names
        self._tolerances = tolerances
        self._accepts = accepts
        self._delivery = delivery
        self._type: Any = ParallelGripperCommand if self._parallel else GripperCommand
        self._goals: list[_Goal] = []
        self._begun: _Goal | None = None
        self._opening_m = 0.0
        self._server: Any = ActionServer(
            node,
            self._type,
            graph.GRIPPER_ACTION,
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def observe(self, opening_m: float, time_s: float) -> None:
        """Tells the goal's client how far it is, and ends the goal when it is there or stalled."""
        self._opening_m = opening_m
        goal = self._begun
        if goal is None:
            return
        state = goal.motion.observe(opening_m, time_s)
        if state is GripperState.MOVING:
            goal.handle.publish_feedback(self._told(self._type.Feedback(), state))
        else:
            self._end([goal], "")

    def hold(self, opening_m: float) -> None:
        """Ends the goal as aborted."""
        self._end(self._goals, "the simulated driver holds")
        self.target_m = self._opening_m = opening_m

    def close(self) -> None:
        """Ends the server."""
        self._end(self._goals, "the simulated driver ends")
        self._server.destroy()

    def _on_goal(self, request: Any) -> Any:
        from rclpy.action import GoalResponse

        try:
            if not self._accepts():
                raise ConfigError("the simulator is not active")
            GripperMotion(self._target(request), self._tolerances)
        except ConfigError as error:
            self._node.get_logger().warning(f"gripper goal refused: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_cancel(self, handle: Any) -> Any:
        """The gripper stays where it is."""
        from rclpy.action import CancelResponse

        goals = [goal for goal in self._goals if goal.handle.goal_id == handle.goal_id]
        if self._begun in goals:
            self.target_m = self._opening_m
        self._end(goals, "cancelled")
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        goal = _Goal(handle, GripperMotion(self._target(handle.request), self._tolerances))
        self._goals.append(goal)
        self._delivery.send(lambda: self._begin(goal))
        await goal.end
        if goal.motion.state is not GripperState.MOVING:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return self._told(self._type.Result(), goal.motion.state)

    def _begin(self, goal: _Goal) -> None:
        if goal in self._goals:
            self._end(self._goals[: self._goals.index(goal)], "replaced by a newer goal")
            self._begun, self.target_m = goal, goal.motion.target_m

    def _end(self, goals: list[_Goal], reason: str) -> None:
        """Ends goals; their clients are told once the executor comes to it."""
        for goal in list(goals):
            self._goals.remove(goal)
            if goal is self._begun:
                self._begun = None
            if reason:
                self._node.get_logger().info(f"gripper goal to {goal.motion.target_m:g} m: {reason}")
            goal.end.set_result(None)

    def _target(self, request: Any) -> float:
        """The opening (m) that a goal asks for. Raises ConfigError if it names other joints than the fingers."""
        if not self._parallel:
            return float(request.command.position)
        names, positions = list(request.command.name), list(request.command.position)
        known = sorted(names) == sorted(self._names) or (len(names) <= 1 and set(names) <= set(self._names))
        if not known or len(positions) != max(1, len(names)):
            raise ConfigError(
                f"command for joints {names} with {len(positions)} positions; it must have a position for each of "
                f"{list(self._names)}, or for one of them, which the other follows"
            )
        return float(sum(positions)) * 2 / len(positions)

    def _told(self, message: Any, state: GripperState) -> Any:
        """Fills a result or feedback with the present opening and the flags, where it has them."""
        if self._parallel:
            message.state.header.stamp = self._node.get_clock().now().to_msg()
            message.state.name = list(self._names)
            message.state.position = [self._opening_m / 2] * 2
        else:
            message.position = self._opening_m
        if hasattr(message, "stalled"):
            message.stalled = state is GripperState.STALLED
            message.reached_goal = state is GripperState.REACHED
        return message
