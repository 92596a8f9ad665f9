"""When to stop: an exit rule decides from the candidates of the exits that have run; layers beyond are not computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import Text
from deer_policies.deer.criteria import ActionConsistency, Candidate, ExitCriterion, HeadOutput
from deer_policies.errors import ConfigError

NEVER = -1e8
"""Threshold of an exit that is never taken; its candidate action is not even computed unless a later exit needs it."""
ALWAYS = 1e8
"""Threshold of the last exit in use."""
HORIZON_STEPS = 60
"""Sets the slack of a `Pace`."""


@dataclass(frozen=True)
class Decision:
    """Whether to stop at the deepest candidate, and the criterion's value where it was computed."""

    stop: bool
    distance: float | None


class ExitRule(Protocol):
    """Decides after each exit whether to go on to the next."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One for each exit in use, for reports."""
        ...

    def decide(self, candidates: Sequence[Candidate], step: int) -> Decision:
        """Args:
        candidates: of the layer before the first exit, then of every exit that has run; the last one is in question.
        step: policy steps since the subtask began.
        """
        ...

    def limited(self, exits: int) -> ExitRule:
        """The same rule with only the first `exits` exits in use."""
        ...


@dataclass(frozen=True)
class Pace:
    """Keeps the mean cost of a long episode near an average, whatever the robot meets in it.

    Thresholds hold an average over the steps that they were solved from. A robot that is stuck meets the same hard step
    again and again, each at full depth, and one such episode costs as much as many good ones. So the thresholds grow
    with what an episode has spent above the average so far, up to always taking the first exit. The mean cost of n
    steps is then at most `average + slack / n`, and what one step can cost more than the average through n.

    Attributes:
        average_llm_gmac: of a step, in 1e9 MAC, for an instruction of the reference length.
        slack_gmac: what an episode may spend above the average in all.
    """

    average_llm_gmac: float
    slack_gmac: float

    @classmethod
    def of(cls, thresholds: Sequence[float], average_llm_gmac: float, llm_gmac: Sequence[float]) -> Pace:
        """For thresholds that were solved for an average; `llm_gmac` is the cost of each exit.

        The slack is what `HORIZON_STEPS` at the average cost more than as many at the first exit.
        """
        cheapest = llm_gmac[_first_in_use(thresholds)]
        return cls(average_llm_gmac, HORIZON_STEPS * max(average_llm_gmac - cheapest, 0.0))

    def eased(self, thresholds: tuple[float, ...], surplus_gmac: float) -> tuple[float, ...]:
        """Thresholds for the next step of an episode that has spent so much more than the average for its steps."""
        if surplus_gmac <= 0.0:
            return thresholds
        if surplus_gmac >= self.slack_gmac:
            first = _first_in_use(thresholds)
            return (NEVER,) * first + (ALWAYS,) * (len(thresholds) - first)
        growth = 1.0 / (1.0 - surplus_gmac / self.slack_gmac)
        return tuple(value * growth if value > 0.0 else value for value in thresholds)


def _first_in_use(thresholds: Sequence[float]) -> int:
    return next((index for index, value in enumerate(thresholds) if value > NEVER), len(thresholds) - 1)


@dataclass(frozen=True)
class ThresholdRule:
    """Stops at the first exit whose distance is not above its threshold, at the latest at the last exit in use.

    Attributes:
        thresholds: one for each exit in use; that of the last is not consulted.
        criterion: gives the distance.
        pace: eases the thresholds in episodes that cost more than their average, see `DeerPolicy`; None: they stay.
    """

    thresholds: tuple[float, ...]
    criterion: ExitCriterion = field(default_factory=ActionConsistency)
    pace: Pace | None = None

    def __post_init__(self) -> None:
        if not self.thresholds or any(value != value for value in self.thresholds):
            raise ConfigError(f"exit thresholds are {self.thresholds}; give a number for each exit in use")

    @classmethod
    def fixed(cls, exit_index: int) -> ThresholdRule:
        """Always stops at this exit."""
        if exit_index < 0:
            raise ConfigError(f"exit index is {exit_index}; the shallowest exit is 0")
        return cls((NEVER,) * exit_index + (ALWAYS,))

    def limited(self, exits: int) -> ThresholdRule:
        """The same thresholds with only the first `exits` exits in use."""
        if exits >= len(self.thresholds):
            return self
        return replace(self, thresholds=(*self.thresholds[: exits - 1], ALWAYS))

    def at_pace(self, surplus_gmac: float) -> ThresholdRule:
        """The rule for the next step of an episode; see `Pace`."""
        return self if self.pace is None else replace(self, thresholds=self.pace.eased(self.thresholds, surplus_gmac))

    def surplus_after(self, surplus_gmac: float, llm_gmac: float) -> float:
        """What an episode has spent above the average after a step of this cost."""
        return surplus_gmac if self.pace is None else surplus_gmac + llm_gmac - self.pace.average_llm_gmac

    def decide(self, candidates: Sequence[Candidate], step: int) -> Decision:
        """See `ExitRule`. Expects a batch of one."""
        index = len(candidates) - 2
        last = index >= len(self.thresholds) - 1
        # The last exit is taken anyway; its distance is told where it costs no further run of the head.
        compared = self.thresholds[index - 1] > NEVER and index > 0 if last else self.thresholds[index] > NEVER
        if not compared:
            return Decision(last, None)
        distance = float(self.criterion.distance(candidates[-2], candidates[-1], step))
        return Decision(last or distance <= self.thresholds[index], distance)


class Segments(Protocol):
    """What a step runs after the images are encoded: a `DeerModel`, or what stands in for one."""

    @property
    def head(self) -> Callable[..., Any]:
        """See `ActionHead.forward`."""
        ...

    def exit_features(self, text: Text, media: torch.Tensor) -> Iterator[torch.Tensor]:
        """See `DeerModel.exit_features`."""
        ...


class ExitWalk:
    """One sample's way from exit to exit, fed with one feature after the other until its rule stops.

    Every candidate starts from the same head state. The state to keep is the one of the candidate that was taken; the
    official code runs the head once more for it, with the same numbers.

    Attributes:
        candidates: of the layer before the first exit and of every exit so far.
        distances: those that were computed.
    """

    def __init__(
        self,
        head: Callable[..., Any],
        proprioception: torch.Tensor | None,
        state: HeadState,
        rule: ExitRule,
        step: int,
    ) -> None:
        """Args:
        head: see `ActionHead.forward`.
        proprioception: (1, 1, 15), or None for a policy without it.
        state: of the head before this step.
        rule: decides where to stop.
        step: policy steps since the subtask began.
        """
        self.candidates: list[Candidate] = []
        self.distances: list[float] = []
        self._head = head
        self._proprioception = proprioception
        self._state = state
        self._rule = rule
        self._step = step

    def goes_on(self, feature: torch.Tensor) -> bool:
        """Takes the next feature (1, dim): of the layer before the first exit, then of each exit."""
        self.candidates.append(Candidate(feature, self._run_head))
        if len(self.candidates) == 1:
            return True
        decision = self._rule.decide(self.candidates, self._step)
        if decision.distance is not None:
            self.distances.append(decision.distance)
        return not decision.stop

    def _run_head(self, feature: torch.Tensor) -> HeadOutput:
        pose, gripper_logit, after = self._head(feature[:, None], self._proprioception, self._state)
        return pose[:, 0], gripper_logit[:, 0], after


def run_to_exit(
    model: Segments,
    text: Text,
    media: torch.Tensor,
    proprioception: torch.Tensor | None,
    state: HeadState,
    rule: ExitRule,
    step: int,
) -> tuple[list[Candidate], list[float]]:
    """Runs layers until the rule stops; deeper ones are not computed.

    Args:
        model: layers and head, in evaluation mode.
        text, media: of one sample, from `DeerModel.text` and `DeerModel.media`.
        proprioception, state, rule, step: see `ExitWalk`.

    Returns:
        Candidates and distances; see `ExitWalk`.
    """
    walk = ExitWalk(model.head, proprioception, state, rule, step)
    for feature in model.exit_features(text, media):
        if not walk.goes_on(feature):
            break
    return walk.candidates, walk.distances
