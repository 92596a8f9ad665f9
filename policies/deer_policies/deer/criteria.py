"""Exit criteria: numbers that are small when going deeper is not worth it, since two adjacent exits agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F

from deer_policies.deer.action_head import HeadState
from deer_policies.errors import ConfigError

HeadOutput = tuple[torch.Tensor, torch.Tensor, HeadState]


class Candidate:
    """What the policy would do if it stopped here; the head runs when its answer is first asked for, and only once."""

    def __init__(self, feature: torch.Tensor, run_head: Callable[[torch.Tensor], HeadOutput]) -> None:
        """Args:
        feature: (batch, dim) pooled feature.
        run_head: maps the feature to poses (batch, horizon * 6), gripper logits (batch, horizon), and the state
            after the step.
        """
        self.feature = feature
        self._run_head = run_head

    @cached_property
    def output(self) -> HeadOutput:
        """Poses (batch, horizon * 6), gripper logits (batch, horizon), and the state to keep if it stops here."""
        return self._run_head(self.feature)

    @property
    def pose(self) -> torch.Tensor:
        """(batch, horizon * 6)."""
        return self.output[0]

    @property
    def evaluated(self) -> bool:
        """Whether the head has run."""
        return "output" in self.__dict__


class ExitCriterion(Protocol):
    """A number that is small when going deeper is not worth it."""

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """(batch,) for the candidates of two adjacent exits at policy step `step` of the subtask."""
        ...


def action_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Root mean square over the pose dimensions of all actions: (..., horizon * 6) twice -> (...).

    The gripper takes no part (DeeR).
    """
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
        """The policy step itself: a threshold is the last step at which its exit is taken."""
        return torch.full((len(current.feature),), float(step))


PREDICTED = "predicted"
"""Name of the criterion that a calibration fits; see `predicted_distance`."""
CRITERIA: dict[str, Callable[[], ExitCriterion]] = {
    "action": ActionConsistency,
    "feature": FeatureSimilarity,
    "time": TimeStep,
}
"""Those that nothing has to be fitted for."""
CRITERION_NAMES = (*CRITERIA, PREDICTED)


def checked_criterion(name: str) -> str:
    """The name, if it is one. Raises ConfigError listing the names there are."""
    if name not in CRITERION_NAMES:
        raise ConfigError(f"there is no exit criterion {name!r}; choose one of {', '.join(CRITERION_NAMES)}")
    return name
