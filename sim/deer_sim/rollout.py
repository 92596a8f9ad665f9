"""One subtask: a policy acts in an environment until the task is solved or the time is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deer_policies.interfaces import ExitReport, Policy
from deer_sim.environment import Environment, TimeStep
from deer_sim.tasks import solved

MAX_STEPS = 360
"""CALVIN's limit of control steps for one subtask."""


@dataclass(frozen=True)
class RolloutResult:
    """What came of one subtask.

    Attributes:
        success: whether the task's condition held within the limit.
        steps: control steps taken.
        exit_counts: steps that ended at each exit index.
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
    policy: Policy,
    task: str,
    instruction: str,
    first: TimeStep,
    max_steps: int = MAX_STEPS,
    on_step: Callable[[TimeStep, np.ndarray], None] | None = None,
) -> RolloutResult:
    """Follows one instruction from the state `first`, which the environment is in.

    Success is tested after every step against the state at the start, as CALVIN does. Only the first action of a chunk
    is executed, since the policy is asked again at every control step. `on_step` is told what was seen and the action
    (7,) that is executed.
    """
    state = policy.initial_state()
    now = first
    reports: list[ExitReport] = []
    success = False
    while not success and len(reports) < max_steps:
        chunk, state, report = policy.step(now.observation(instruction), state)
        if on_step is not None:
            on_step(now, chunk.first.values)
        now = environment.step(chunk.first.values)
        reports.append(report)
        success = bool(solved(first.state, now.state, (task,)))
    count = max(len(reports), 1)
    return RolloutResult(
        success=success,
        steps=len(reports),
        exit_counts=dict(sorted(Counter(report.exit_index for report in reports).items())),
        mean_llm_gmac=sum(report.llm_gmac for report in reports) / count,
        mean_total_gmac=sum(report.total_gmac for report in reports) / count,
        full_llm_gmac=reports[-1].full_llm_gmac if reports else 0.0,
        full_total_gmac=reports[-1].full_total_gmac if reports else 0.0,
        mean_exit_layers=sum(report.exit_layer + 1 for report in reports) / count,
        last=now,
    )
