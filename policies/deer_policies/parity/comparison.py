"""How far one stage's numbers are from the recorded ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

TOLERANCE = 1e-5
"""Largest error that counts as equal: absolute, and relative where a recorded number is above 1."""


@dataclass(frozen=True)
class StageResult:
    """What came of replaying one stage.

    Attributes:
        name: of the stage.
        numbers: how many were compared; 0 if the stage was not recorded.
        error: largest error of continuous numbers, see `TOLERANCE`.
        worst: key of the array with the largest error.
        wrong: keys of discrete values (exits, thresholds, token ids, signs) that are not the same.
    """

    name: str
    numbers: int
    error: float
    worst: str
    wrong: tuple[str, ...] = ()

    @property
    def recorded(self) -> bool:
        """Whether there was anything to replay."""
        return self.numbers > 0

    @property
    def holds(self) -> bool:
        """Whether everything that was recorded is matched; an error that is not a number does not hold."""
        return not self.wrong and self.error <= TOLERANCE


class Comparison:
    """Collects the comparisons of one stage."""

    def __init__(self) -> None:
        self._numbers = 0
        self._errors: dict[str, float] = {}
        self._wrong: list[str] = []

    def near(self, key: str, ours: torch.Tensor, recorded: torch.Tensor | np.ndarray) -> None:
        """Compares continuous numbers; a shape that differs is an infinite error."""
        expected = torch.as_tensor(recorded).double()
        self._numbers += expected.numel()
        if ours.shape != expected.shape:
            self._errors[key] = float("inf")
            return
        if expected.numel() == 0:
            return
        error = ((ours.double() - expected).abs() / expected.abs().clamp(min=1.0)).max()
        self._errors[key] = max(self._errors.get(key, 0.0), float(error.nan_to_num(nan=torch.inf)))

    def same(self, key: str, ours: Any, recorded: Any) -> None:
        """Compares discrete values, which must be equal."""
        self._numbers += int(np.size(recorded))
        if not np.array_equal(ours, recorded):
            self._wrong.append(key)

    def result(self, name: str) -> StageResult:
        """What was found."""
        worst = max(self._errors, key=lambda key: self._errors[key], default="")
        return StageResult(name, self._numbers, self._errors.get(worst, 0.0), worst, tuple(dict.fromkeys(self._wrong)))
