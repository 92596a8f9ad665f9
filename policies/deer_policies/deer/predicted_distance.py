"""The criterion 'predicted': how far an exit's action is likely to be from all layers', fitted in a calibration.

Adjacent exits can agree and both be wrong: while a gripper is about to close, or late in a subtask that goes badly. A
calibration records how far each exit was from all layers, so what tells of it can be weighed: a linear model of the
logarithm of that distance on a few numbers that are at hand when an exit is judged. It is ours, not the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deer_policies.deer.criteria import Candidate, action_distance
from deer_policies.errors import ConfigError
from deer_policies.interfaces import POSE_SIZE

SIGNALS = ("consistency", "bend", "size", "doubt", "time")
"""Distance of the pose from the exit before's; of a chunk's last action from its first; root mean square of the poses,
all in logarithms; the gripper's uncertainty; and the steps since the subtask began."""
FLOOR = 0.01
"""Added to distances before the logarithm, in units of the normalised action: less is as good as none."""
LONGEST_STEPS = 60
"""Of the time since the subtask began; later is the same."""
GRIPPER_DISTANCE = 0.14
"""What a gripper's command that differs from all layers' counts as."""
RIDGE = 20.0
"""Penalty on squared weights of normalised terms, so that few recorded steps give no wild ones."""


class Signals:
    """Stands in for a criterion while a calibration records: gives `SIGNALS` instead of one distance."""

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """(batch, signals) for the candidates of two adjacent exits at policy step `step` of the subtask."""
        pose, logit = current.pose.float(), current.output[1].float()
        consistency = action_distance(pose, previous.pose.float())
        bend = action_distance(pose[:, :POSE_SIZE], pose[:, -POSE_SIZE:])
        size = pose.square().mean(-1).sqrt()
        doubt = (1.0 - (2.0 * logit.sigmoid() - 1.0).abs()).amax(-1)
        time = torch.full_like(doubt, min(step, LONGEST_STEPS) / LONGEST_STEPS)
        logarithms = [(value + FLOOR).log() for value in (consistency, bend, size)]
        return torch.stack([*logarithms, doubt, time], dim=-1)


@dataclass(frozen=True)
class PredictedDistance:
    """A fitted criterion.

    Attributes:
        mean, scale, weight: of each term: the signals, and their squares.
        intercept: logarithm of the distance where all terms are at their mean.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.scale), len(self.weight)} != {2 * len(SIGNALS)} or min(self.scale) <= 0.0:
            raise ConfigError(
                f"a predicted distance has mean, scale and weight of {2 * len(SIGNALS)} terms, scales above 0; "
                f"got {self}"
            )

    @classmethod
    def fitted(cls, signals: torch.Tensor, errors: torch.Tensor) -> PredictedDistance:
        """By ridge regression; all exits but the last one share the weights, as thresholds are an exit's own.

        Args:
            signals: (exits, samples, signals).
            errors: (exits, samples), root mean square distance of each exit's pose from the last exit's, infinite where
                the gripper's command differs.
        """
        distances = errors.double().clamp(max=GRIPPER_DISTANCE).where(errors.isinf(), errors.double())
        wanted = (distances[:-1] + FLOOR).log()
        centred = (wanted - wanted.mean(1, keepdim=True)).flatten()
        terms = _terms(signals[:-1].double()).flatten(0, 1)
        mean, scale = terms.mean(0), terms.std(0, correction=0).clamp(min=1e-6)
        normalised = (terms - mean) / scale
        square = normalised.T @ normalised + RIDGE * torch.eye(terms.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(square, normalised.T @ centred)
        return cls(tuple(mean.tolist()), tuple(scale.tolist()), tuple(weight.tolist()), float(wanted.mean()))

    def of(self, signals: torch.Tensor) -> torch.Tensor:
        """Distances (...), in units of the normalised action, from signals (..., signals)."""
        mean, scale, weight = (torch.tensor(part, dtype=torch.float64) for part in (self.mean, self.scale, self.weight))
        terms = (_terms(signals.double().cpu()) - mean) / scale
        return (terms @ weight + self.intercept).exp().float()

    def distance(self, previous: Candidate, current: Candidate, step: int) -> torch.Tensor:
        """See `criteria.ExitCriterion`: (batch,)."""
        return self.of(Signals().distance(previous, current, step))


def _terms(signals: torch.Tensor) -> torch.Tensor:
    return torch.cat([signals, signals.square()], dim=-1)
