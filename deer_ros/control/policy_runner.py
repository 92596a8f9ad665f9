"""Runs a policy on a thread of its own: loads it, warms it up, steps it, changes its budget between steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import (
    PROPRIOCEPTION_SIZE,
    Action,
    Budget,
    ExitReport,
    Observation,
    Policy,
    PolicyInfo,
    Understanding,
)
from deer_ros.control.goal import Goal
from deer_ros.control.inference_worker import InferenceWorker
from deer_ros.control.memory_fallback import MemoryFallback

Value = TypeVar("Value")

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class StepRequest:
    """An observation to act on, for a goal.

    Attributes:
        goal: that it is for.
        observation: what the policy is shown.
        stamp_ns: of its frame; the answer carries it.
        received_s: when it came in, of the monotonic clock.
        stamps_ns: of the messages that the frame was put together from, by channel.
    """

    goal: Goal
    observation: Observation
    stamp_ns: int
    received_s: float
    stamps_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """One step of the policy: the chunk's actions, the exit report, and the budget that was in force."""

    actions: tuple[Action, ...]
    report: ExitReport
    budget: Budget


class StaleObservationError(ConfigError):
    """The newest observation was already too old when the model came to it."""


class PolicyRunner:
    """The model's thread and everything that happens on it.

    Args:
        load: makes the policy; called on the model's thread.
        max_age_s: an observation older than this when the model begins is not acted on.
        deliver: called on the model's thread with each request and its finished future.
        warn: called on the model's thread with words about what was changed to go on.

    Attributes:
        max_age_s: may be changed at any time.

    Raises:
        DeerError: what `load` raises, or if the policy can't do a step on a blank observation.
    """

    def __init__(
        self,
        load: Callable[[], Policy],
        max_age_s: float,
        deliver: Callable[[StepRequest, Future[StepResult]], None],
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.max_age_s = max_age_s
        self._worker: InferenceWorker[StepRequest, StepResult] = InferenceWorker(self._step, deliver)
        try:
            self._policy = self._worker.call(load).result()
            self._fallback = MemoryFallback(self._policy, warn)
            self._worker.call(self._warm_up).result()
        except BaseException:
            self._worker.close()
            raise
        self.info: PolicyInfo = self._policy.info

    @property
    def replaced(self) -> int:
        """Frames that the model was too slow for."""
        return self._worker.replaced

    @property
    def waiting(self) -> int:
        """Requests and changes that have not begun."""
        return self._worker.waiting

    @property
    def busy_s(self) -> float:
        """For how long the model has been at the step, or the change, that it is doing; 0 if it has nothing to do."""
        return self._worker.busy_s

    @property
    def budget(self) -> Budget:
        """The budget in force."""
        return self._policy.budget

    @property
    def reduced(self) -> str:
        """Which exits were given up since the budget was set, and why, in words; empty if none was."""
        return self._fallback.reduced

    def submit(self, request: StepRequest) -> None:
        """Asks for a step; a request that has not begun is replaced."""
        self._worker.submit(request)

    def understanding(self, instruction: str) -> Understanding | None:
        """What the policy would make of an instruction, on the caller's thread; None if it can't tell."""
        understand = getattr(self._policy, "understanding", None)
        return None if understand is None else understand(instruction)

    def set_budget(self, budget: Budget) -> Future[None]:
        """Changes the budget between two steps; the future raises BudgetError if it can't be met.

        Exits that were given up are in use again.
        """
        return self.change(partial(self._set_budget, budget))

    def change(self, make: Callable[[Policy], Value]) -> Future[Value]:
        """Changes something about the policy between two steps; the future raises what `make` raises."""
        return self._worker.call(lambda: make(self._policy))

    def close(self) -> bool:
        """Ends the thread after the step that it is in; False if it is still in it some seconds later."""
        return self._worker.close()

    def _step(self, request: StepRequest) -> StepResult | None:
        """None if the goal has ended meanwhile: nobody waits for that action."""
        goal = request.goal
        if goal.ended:
            return None
        if goal.policy_state is None:
            goal.policy_state = self._policy.initial_state()
        budget = self._policy.budget
        chunk, goal.policy_state, report = self._fallback.step(
            request.observation, goal.policy_state, partial(self._check_age, request)
        )
        return StepResult(chunk.each, report, budget)

    def _check_age(self, request: StepRequest) -> None:
        age_s = time.monotonic() - request.received_s
        if age_s > self.max_age_s:
            raise StaleObservationError(
                f"the newest frame is {age_s:.2f} s old; at most {self.max_age_s:g} s are allowed"
            )

    def _set_budget(self, budget: Budget, policy: Policy) -> None:
        policy.set_budget(budget)
        self._fallback.forget()

    def _warm_up(self) -> None:
        """First steps are slow (allocations, code caches); they happen here and not when the arm moves."""
        info, state = self._policy.info, self._policy.initial_state()
        blank = Observation(
            np.zeros(info.static_shape, np.uint8),
            np.zeros(info.gripper_shape, np.uint8),
            np.zeros(PROPRIOCEPTION_SIZE, np.float32),
            "warm up",
            0.0,
        )
        for _ in range(WARM_UP_STEPS):
            _, state, _ = self._fallback.step(blank, state)
