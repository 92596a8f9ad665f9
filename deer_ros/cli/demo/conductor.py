"""Leads a running stack through the chain of instructions and changes the budget on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget
from deer_ros.cli.demo.progress import Progress
from deer_ros.cli.demo.record import SubtaskRecord
from deer_ros.cli.demo.recorder import Recorder
from deer_ros.client import StackClient
from deer_ros.goal_handle import GoalHandle
from deer_ros.reports import FollowResult, Outcome, StepFeedback
from deer_sim.chains import Subtask

CHANGE_SUBTASK, CHANGE_STEP = 2, 15
"""The budget changes in the middle of the chain, and of a subtask, so that one sees it act at the very next step."""
CANCEL_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Budgets:
    """Average budgets of the language model before and after the change, and its full cost, in 1e9 MAC a step."""

    first_gmac: float
    second_gmac: float
    full_gmac: float

    def __post_init__(self) -> None:
        if not 0.0 < self.second_gmac < self.first_gmac <= self.full_gmac:
            raise ConfigError(
                f"budgets {self.first_gmac:g} then {self.second_gmac:g} GMAC must fall and lie within the full model's "
                f"{self.full_gmac:g} GMAC; choose other shares"
            )


class Conductor:
    """Gives the instructions one by one; `records` holds those that were begun, also after an interruption."""

    def __init__(
        self, client: StackClient, recorder: Recorder, progress: Progress, budgets: Budgets, max_steps: int
    ) -> None:
        self.records: list[SubtaskRecord] = []
        self._client = client
        self._recorder = recorder
        self._progress = progress
        self._budgets = budgets
        self._max_steps = max_steps
        self._budget_gmac = 0.0

    def run(self, subtasks: Sequence[Subtask]) -> None:
        """Runs the chain; a subtask that fails does not end it.

        Raises:
            StackError: if the stack can no longer answer.
            BudgetError: if the policy can't meet a budget.
            KeyboardInterrupt: after Ctrl-C; the robot holds then.
        """
        self._set_budget(self._budgets.first_gmac)
        for number, subtask in enumerate(subtasks):
            if number > CHANGE_SUBTASK:
                self._tighten()
            self._follow(number, subtask)

    def _follow(self, number: int, subtask: Subtask) -> None:
        self._progress.begin(number, subtask)
        self._client.begin_subtask(subtask.task)
        self._recorder.begin()
        budget_before = self._budget_gmac
        steps = 0

        def on_feedback(feedback: StepFeedback) -> None:
            nonlocal steps
            steps = feedback.step
            self._progress.step(feedback)
            if number == CHANGE_SUBTASK and steps >= CHANGE_STEP:
                self._tighten()

        result = None
        handle = self._client.send(subtask.instruction, self._max_steps, on_feedback)
        try:
            result = handle.result()
        finally:
            ended = result or self._interrupted(handle, steps)
            shots = self._recorder.subtask(number, subtask.instruction, ended.steps)
            record = SubtaskRecord(
                task=subtask.task,
                instruction=subtask.instruction,
                success=ended.outcome is Outcome.DONE,
                reason=ended.reason,
                # An interrupted chunk has gone on since the feedback that came when it began.
                steps=max(ended.steps, shots[-1].step if shots else 0),
                budget_gmac=shots[0].budget_gmac if shots else budget_before,
                shots=shots,
            )
            self.records.append(record)
            self._progress.end(record)

    def _interrupted(self, handle: GoalHandle, steps: int) -> FollowResult:
        """Stops the robot as far as the stack still listens; what was done so far is kept."""
        try:
            handle.cancel(CANCEL_TIMEOUT_S)
        except Exception as error:
            return FollowResult(Outcome.FAILED, f"cut short; {error}", steps)
        return FollowResult(Outcome.CANCELLED, "cut short", steps)

    def _tighten(self) -> None:
        if self._budget_gmac != self._budgets.second_gmac:
            self._set_budget(self._budgets.second_gmac)

    def _set_budget(self, average_gmac: float) -> None:
        self._client.set_budget(Budget(average_llm_gmac=average_gmac))
        self._budget_gmac = average_gmac
        self._progress.budget(average_gmac, average_gmac / self._budgets.full_gmac)
