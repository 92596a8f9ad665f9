"""When to stop: exit criteria compare the candidates of adjacent exits, an exit rule decides from their distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel, Text
from deer_policies.errors import ConfigError

NEVER = -1e8
"""Threshold of an exit that is never taken; its candidate action is not even computed unless a later exit needs it."""
ALWAYS = 1e8
"""Threshold of the last exit in use."""

HeadOutput = tuple[torch.Tensor, torch.Tensor, HeadState]


class Candidate:
    """What the policy would do if it stopped here; the head runs when its answer is first asked for, and only once."""

    def __init__(self, feature: torch.Tensor, run_head: Callable[[torch.Tensor], HeadOutput]) -> None:
        """Args:
        feature: (batch, dim) pooled feature.
        run_head: maps the feature to pose (batch, 6), gripper logit (batch,), and the state after the step.
        """
        self.feature = feature
        self._run_head = run_head

    @cached_property
    def output(self) -> HeadOutput:
        """Pose (batch, 6), gripper logit (batch,), and the state to keep if the policy stops here."""
        return self._run_head(self.feature)

    @property
    def pose(self) -> torch.Tensor:
        """(batch, 6)."""
        return self.output[0]

    @property
    def evaluated(self) -> bool:
        """Whether the head has run."""
        return "output" in self.__dict__


class ExitCriterion(Protocol):
    """A number that is small when going deeper is not worth it."""

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """(batch,) for the candidates of two adjacent exits at control step `step` of the subtask."""
        ...


def action_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Root mean square over the pose dimensions: (..., 6), (..., 6) -> (...). The gripper takes no part (DeeR)."""
    return (first - second).square().mean(-1).sqrt()


@dataclass(frozen=True)
class ActionConsistency:
    """Adjacent exits propose nearly the same pose step (DeeR, arXiv 2411.02359, equation 3)."""

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """Root mean square difference of the poses, in units of the normalised action."""
        return action_distance(current.pose, previous.pose)


@dataclass(frozen=True)
class FeatureSimilarity:
    """Adjacent exits have nearly the same pooled feature (DeeR, table 4)."""

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """One minus the cosine of the two features."""
        return 1.0 - F.cosine_similarity(current.feature.float(), previous.feature.float(), dim=-1)


@dataclass(frozen=True)
class TimeStep:
    """The exit grows with the time since the subtask began, whatever is seen (DeeR, table 4)."""

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """The control step itself: a threshold is the last step at which its exit is taken."""
        return torch.full((len(current.feature),), float(step))


CRITERIA: dict[str, Callable[[], ExitCriterion]] = {
    "action": ActionConsistency,
    "feature": FeatureSimilarity,
    "time": TimeStep,
}


def criterion_named(name: str) -> ExitCriterion:
    """The criterion of this name. Raises ConfigError listing the names there are."""
    if name not in CRITERIA:
        raise ConfigError(f"there is no exit criterion {name!r}; choose one of {', '.join(CRITERIA)}")
    return CRITERIA[name]()


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
        step: control steps since the subtask began.
        """
        ...

    def limited(self, exits: int) -> ExitRule:
        """The same rule with only the first `exits` exits in use."""
        ...


@dataclass(frozen=True)
class ThresholdRule:
    """Stops at the first exit whose distance is not above its threshold, at the latest at the last exit in use.

    Attributes:
        thresholds: one for each exit in use; that of the last is not consulted.
        criterion: gives the distance.
    """

    thresholds: tuple[float, ...]
    criterion: ExitCriterion = ActionConsistency()

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
        return ThresholdRule((*self.thresholds[: exits - 1], ALWAYS), self.criterion)

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


def run_to_exit(
    model: DeerModel,
    text: Text,
    media: torch.Tensor,
    proprioception: torch.Tensor | None,
    state: HeadState,
    rule: ExitRule,
    step: int,
) -> tuple[list[Candidate], list[float]]:
    """Runs layers until the rule stops; deeper ones are not computed.

    Every candidate starts from the same `state`. The state to keep is the one of the candidate that was taken; the
    official code runs the head once more for it, with the same numbers.

    Args:
        model: in evaluation mode.
        text, media: of one sample, from `DeerModel.text` and `DeerModel.media`.
        proprioception: (1, 1, 15), or None for a policy without it.
        state: of the head before this step.
        rule: decides where to stop.
        step: control steps since the subtask began.

    Returns:
        The candidates of the layer before the first exit and of every exit up to the one taken, and the distances
        that were computed.
    """

    def run_head(feature: torch.Tensor) -> HeadOutput:
        pose, gripper_logit, after = model.head(feature[:, None], proprioception, state)
        return pose[:, 0], gripper_logit[:, 0], after

    candidates: list[Candidate] = []
    distances: list[float] = []
    for feature in model.exit_features(text, media):
        candidates.append(Candidate(feature, run_head))
        if len(candidates) == 1:
            continue
        decision = rule.decide(candidates, step)
        if decision.distance is not None:
            distances.append(decision.distance)
        if decision.stop:
            break
    return candidates, distances
