"""One subtask: someone acts in an environment until the task is solved or the time is up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deer_policies.interfaces import Action, ExitReport, Policy
from deer_sim.environment import Environment, TimeStep
from deer_sim.expert import Expert
from deer_sim.tasks import solved

MAX_STEPS = 360
"""CALVIN's limit of control steps for one subtask."""
OnStep = Callable[[TimeStep, np.ndarray, ExitReport | None], None]
"""Told what was seen, the action (7,) that is executed, and the policy's report if it was asked at this step."""


class Actor(Protocol):
    """Whoever chooses the actions of an episode."""

    @property
    def looks(self) -> bool:
        """Whether `act` will need the pictures of the time step that it is given next."""
        ...

    def reset(self, first: TimeStep) -> None:
        """An episode begins."""
        ...

    def begin(self, task: str, instruction: str, first: TimeStep) -> None:
        """A subtask begins; an episode may have several in a row."""
        ...

    def act(self, now: TimeStep) -> tuple[np.ndarray, ExitReport | None]:
        """The action (7,) that is executed next, and what it cost to decide on it; None if nothing had to be."""
        ...


class PolicyActor:
    """A policy: it looks and is asked only when every action of its last chunk was executed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state: Any = None
        self._instruction = ""
        self._left: deque[Action] = deque()

    @property
    def looks(self) -> bool:
        """See `Actor`."""
        return not self._left

    def reset(self, first: TimeStep) -> None:
        """See `Actor`; a policy's memory begins with each subtask."""

    def begin(self, task: str, instruction: str, first: TimeStep) -> None:
        """See `Actor`; the policy is told the instruction only, and what is left of a chunk is dropped."""
        self._state = self._policy.initial_state()
        self._instruction = instruction
        self._left.clear()

    def act(self, now: TimeStep) -> tuple[np.ndarray, ExitReport | None]:
        """See `Actor`."""
        report = None
        if self.looks:
            chunk, self._state, report = self._policy.step(now.observation(self._instruction), self._state)
            self._left.extend(chunk.each)
        return self._left.popleft().values, report


class ExpertActor:
    """The scripted expert: it is told the task, sees the state and no image, and costs nothing."""

    looks = False

    def __init__(self, expert: Expert) -> None:
        self._expert = expert

    def reset(self, first: TimeStep) -> None:
        """See `Actor`."""
        self._expert.reset(first)

    def begin(self, task: str, instruction: str, first: TimeStep) -> None:
        """See `Actor`."""
        self._expert.begin(task, first)

    def act(self, now: TimeStep) -> tuple[np.ndarray, ExitReport | None]:
        """See `Actor`; the action is taken as executed."""
        action = self._expert.action(now)
        self._expert.executed(action)
        return action, None


@dataclass(frozen=True)
class RolloutResult:
    """What came of one subtask.

    Attributes:
        success: whether the task's condition held within the limit.
        steps: control steps taken.
        exit_counts: policy steps that ended at each exit index; a policy step is a control step at which the policy was
            asked. Empty where nothing is reported, and so are all costs 0.
        mean_llm_gmac, mean_total_gmac: mean cost of a policy step, of the language model and of the whole policy.
        full_llm_gmac, full_total_gmac: the same if every layer had run at every policy step.
        mean_exit_layers: mean number of language model layers that ran in a policy step.
        last: state at the end, without pictures, from which a next subtask can go on.
    """

    success: bool
    steps: int
    exit_counts: dict[int, int]
    mean_llm_gmac: float
    mean_total_gmac: float
    full_llm_gmac: float
    full_total_gmac: float
    mean_exit_layers: float
    last: TimeStep


def rollout(
    environment: Environment,
    actor: Actor,
    task: str,
    instruction: str,
    first: TimeStep,
    max_steps: int = MAX_STEPS,
    on_step: OnStep | None = None,
    every_picture: bool = False,
) -> RolloutResult:
    """Has one instruction followed from the state `first`, which the environment is in.

    Success is tested after every control step against the state at the start, as CALVIN does. `on_step` is told of
    every control step. Pictures are drawn for the steps that the actor looks at only, or for all with `every_picture`.
    """
    actor.begin(task, instruction, first)
    now = first
    reports: list[ExitReport] = []
    steps, success = 0, False
    while not success and steps < max_steps:
        if actor.looks or every_picture:
            now = environment.look()
        action, report = actor.act(now)
        if on_step is not None:
            on_step(now, action, report)
        now = environment.step(action, look=False)
        steps += 1
        if report is not None:
            reports.append(report)
        success = bool(solved(first.state, now.state, (task,)))
    count = max(len(reports), 1)
    return RolloutResult(
        success=success,
        steps=steps,
        exit_counts=dict(sorted(Counter(report.exit_index for report in reports).items())),
        mean_llm_gmac=sum(report.llm_gmac for report in reports) / count,
        mean_total_gmac=sum(report.total_gmac for report in reports) / count,
        full_llm_gmac=reports[-1].full_llm_gmac if reports else 0.0,
        full_total_gmac=reports[-1].full_total_gmac if reports else 0.0,
        mean_exit_layers=sum(report.exit_layer + 1 for report in reports) / count,
        last=now,
    )
