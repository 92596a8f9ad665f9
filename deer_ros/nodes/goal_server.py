"""The action `follow_instruction`: carries goals in, and feedback, cancellations and results out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deer_msgs.action import FollowInstruction
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from deer_policies.errors import DeerError
from deer_ros import graph
from deer_ros.control.goal import Goal, GoalOutcome

if TYPE_CHECKING:
    from rclpy.node import Node


class GoalServer:
    """Speaks the action protocol; what a goal does is the policy node's.

    Args:
        node: that the server belongs to.
        accepts: whether goals are taken at present.
        begin: starts a goal (16 bytes of id, instruction, max_steps); raises DeerError for one that can't be.
        cancel: ends a goal; when it returns, nothing more of it is published.
    """

    def __init__(
        self,
        node: Node,
        accepts: Callable[[], bool],
        begin: Callable[[bytes, str, int], Goal],
        cancel: Callable[[Goal], None],
    ) -> None:
        self._node = node
        self._accepts = accepts
        self._begin = begin
        self._cancel = cancel
        self._running: dict[bytes, tuple[Goal, ServerGoalHandle, Future]] = {}
        self._server = ActionServer(
            node,
            FollowInstruction,
            graph.FOLLOW_INSTRUCTION,
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def feedback(self, goal: Goal, message: FollowInstruction.Feedback) -> None:
        """Sends feedback of a step, if the goal came as an action."""
        if goal.goal_id in self._running:
            self._running[goal.goal_id][1].publish_feedback(message)

    def ended(self, goal: Goal) -> None:
        """Sends the result of a goal that has ended, if it came as an action."""
        if goal.goal_id in self._running:
            self._running[goal.goal_id][2].set_result(None)

    def close(self) -> None:
        """Ends the server."""
        self._server.destroy()

    def _on_goal(self, request: FollowInstruction.Goal) -> GoalResponse:
        if self._accepts():
            return GoalResponse.ACCEPT
        self._node.get_logger().warning("rejected an instruction: the node is not active")
        return GoalResponse.REJECT

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        running = self._running.get(_goal_id(handle))
        if running is None:
            return CancelResponse.ACCEPT
        goal = running[0]
        if goal.ended:
            return CancelResponse.REJECT
        self._cancel(goal)
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> FollowInstruction.Result:
        goal_id = _goal_id(handle)
        request = handle.request
        if handle.is_cancel_requested:
            handle.canceled()
            return _result(GoalOutcome.CANCELLED, "cancelled before it began", 0)
        try:
            goal = self._begin(goal_id, request.instruction, request.max_steps)
        except DeerError as error:
            self._node.get_logger().warning(f"instruction refused: {error}")
            handle.abort()
            return _result(GoalOutcome.FAILED, str(error), 0)
        end: Future = Future()
        self._running[goal_id] = (goal, handle, end)
        try:
            if not goal.ended:
                await end
        finally:
            del self._running[goal_id]
        self._close_handle(goal, handle)
        return _result(goal.outcome, goal.reason, goal.steps)

    def _close_handle(self, goal: Goal, handle: ServerGoalHandle) -> None:
        """A client that asked for the cancellation is told 'canceled'; any other end short of done is 'aborted'."""
        if goal.outcome is GoalOutcome.DONE:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()


def _goal_id(handle: ServerGoalHandle) -> bytes:
    return bytes(handle.goal_id.uuid)


def _result(outcome: Any, reason: str, steps: int) -> FollowInstruction.Result:
    return FollowInstruction.Result(outcome=int(outcome), reason=reason, steps=steps)
