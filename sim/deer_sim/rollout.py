"""One subtask: someone acts in an environment until the task is solved or the time is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deer_policies.interfaces import ExitReport, Policy
from deer_sim.environment import Environment, TimeStep
from deer_sim.expert import Expert
from deer_sim.tasks import solved

MAX_STEPS = 360
"""CALVIN's limit of control steps for one subtask."""
OnStep = Callable[[TimeStep, np.ndarray, ExitReport | None], None]
"""Told what was seen, the action (7,) that is executed, and the policy's report on it, if there is one."""


class Actor(Protocol):
    """Whoever chooses the actions of an episode."""

    def reset(self, first: TimeStep) -> None:
        """An episode begins."""
        ...

    def begin(self, task: str, instruction: str, first: TimeStep) -> None:
        """A subtask begins; an episode may have several in a row."""
        ...

    def act(self, now: TimeStep) -> tuple[np.ndarray, ExitReport | None]:
        """The action (7,) that is executed next, and what it cost."""
        ...


class PolicyActor:
    """A policy: it is asked at every control step, so only the first action of a chunk is executed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state: Any = None
        self._instruction = ""

    def reset(self, first: TimeStep) -> None:
        """See `Actor`; a policy's memory begins with each subtask."""

    def begin(self, task: str, instruction: str, first: TimeStep) -> None:
        """See `Actor`; the policy is told the instruction only."""
        self._state = self._policy.initial_state()
        self._instruction = instruction

    def act(self, now: TimeStep) -> tuple[np.ndarray, ExitReport | None]:
        """See `Actor`."""
        chunk, self._state, report = self._policy.step(now.observation(self._instruction), self._state)
        return chunk.first.values, report


class ExpertActor:
    """The scripted expert: it is told the task, sees the state and no image, and costs nothing."""

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
        exit_counts: steps that ended at each exit index; empty where nothing is reported, and so are all costs 0.
        mean_llm_gmac, mean_total_gmac: mean cost of a step, of the language model and of the whole policy.
        full_llm_gmac, full_total_gmac: the same if every layer had run at every step.
        mean_exit_layers: mean number of language model layers that ran.
        last: state at the end, from which a next subtask can go on.
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
) -> RolloutResult:
    """Has one instruction followed from the state `first`, which the environment is in.

    Success is tested after every step against the state at the start, as CALVIN does.
    """
    actor.begin(task, instruction, first)
    now = first
    reports: list[ExitReport] = []
    steps, success = 0, False
    while not success and steps < max_steps:
        action, report = actor.act(now)
        if on_step is not None:
            on_step(now, action, report)
        now = environment.step(action)
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
