"""An instruction on its way, as the client that sent it sees it: its feedback, its cancellation, its end."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deer_ros.errors import StackError
from deer_ros.reports import FollowResult, Outcome, StepFeedback

if TYPE_CHECKING:
    from deer_ros.client import StackClient

POLL_S = 0.1
"""How often a waiting call looks whether the stack is still alive."""


class GoalHandle:
    """An instruction on its way; `result` waits for its end and `cancel` stops it at once."""

    def __init__(self, client: StackClient, handle: Any, on_feedback: Callable[[StepFeedback], None] | None) -> None:
        self._client = client
        self._handle = handle
        self._on_feedback = on_feedback
        self.feedback: queue.SimpleQueue[StepFeedback] = queue.SimpleQueue()
        self._result = handle.get_result_async() if handle.accepted else None

    @property
    def goal_id(self) -> bytes:
        """The goal's UUID, as in `PolicyAction.goal_id`."""
        return bytes(self._handle.goal_id.uuid)

    def cancel(self, timeout_s: float = 5.0) -> bool:
        """Asks for the end of motion; returns once that is acknowledged. False if the goal had ended already."""
        if self._result is None:
            return False
        response = self._client.wait_for(self._handle.cancel_goal_async(), timeout_s, "the cancellation")
        return len(response.goals_canceling) > 0

    def result(self, timeout_s: float | None = None) -> FollowResult:
        """Waits for the end, calling `on_feedback` in this thread each time the policy was asked.

        Raises:
            StackError: if the policy node is gone or the time is up.
        """
        if self._result is None:
            return FollowResult(Outcome.REJECTED, "the policy node takes no goals now: it is not active", 0)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._result.done():
            self._client.check()
            if deadline is not None and time.monotonic() > deadline:
                raise StackError(f"the instruction did not end within {timeout_s:g} s; cancel it or allow more time")
            self._pass_on(POLL_S)
        while not self.feedback.empty():
            self._pass_on(0.0)
        message = self._result.result().result
        return FollowResult(Outcome(message.outcome), message.reason, int(message.steps))

    def _pass_on(self, timeout_s: float) -> None:
        try:
            feedback = self.feedback.get(timeout=timeout_s) if timeout_s > 0.0 else self.feedback.get_nowait()
        except queue.Empty:
            return
        if self._on_feedback is not None:
            self._on_feedback(feedback)
