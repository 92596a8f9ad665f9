"""Random exits for training the shared head on histories that mix exits, as early exiting does at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch

from deer_policies.deer.criteria import Candidate
from deer_policies.deer.exits import ALWAYS, Decision


def uniform_exits(batch: int, window: int, exits: int, generator: torch.Generator) -> torch.Tensor:
    """An exit drawn for every sample and step on its own (the paper's first sampling): (batch, window) int64."""
    return torch.randint(exits, (batch, window), generator=generator)


def segment_exits(
    batch: int, window: int, exits: int, generator: torch.Generator, official: bool = False
) -> torch.Tensor:
    """One exit up to a random step and another one after it (the paper's second sampling): (batch, window) int64.

    The step is drawn for each sample; the released code draws one for the whole batch, as `official` does.
    """
    boundary = torch.randint(1, window + 1, (1 if official else batch, 1), generator=generator)
    drawn = torch.randint(exits, (batch, 2), generator=generator)
    in_first = torch.arange(window).expand(batch, window) < boundary
    return torch.where(in_first, drawn[:, :1], drawn[:, 1:])


def draw_exits(
    samplings: Iterable[str], batch: int, window: int, exits: int, generator: torch.Generator, official: bool = False
) -> dict[str, torch.Tensor]:
    """The exits of each sampling by its name, 'uniform' or 'segments'; `official` as in `segment_exits`."""
    samplers: dict[str, Callable[..., torch.Tensor]] = {
        "uniform": uniform_exits,
        "segments": partial(segment_exits, official=official),
    }
    return {name: samplers[name](batch, window, exits, generator) for name in samplings}


def gather_exits(features: torch.Tensor, exits: torch.Tensor) -> torch.Tensor:
    """Picks the drawn exits: (exits, batch, window, dim) by exits (batch, window) -> (batch, window, dim)."""
    index = exits.to(features.device)[None, :, :, None].expand(1, *exits.shape, features.shape[-1])
    return features.gather(0, index)[0]


class RandomExitRule:
    """An exit rule that draws the exit of every step, so that data is gathered on histories that mix exits."""

    def __init__(self, exits: int, rng: np.random.Generator) -> None:
        self._exits = exits
        self._rng = rng
        self._drawn = 0

    @property
    def thresholds(self) -> tuple[float, ...]:
        """None are consulted; the largest for each exit."""
        return (ALWAYS,) * self._exits

    def decide(self, candidates: Sequence[Candidate], step: int) -> Decision:
        """See `deer_policies.deer.exits.ExitRule`; the draw happens at the first exit of a step."""
        index = len(candidates) - 2
        if index == 0:
            self._drawn = int(self._rng.integers(self._exits))
        return Decision(index >= self._drawn, None)

    def limited(self, exits: int) -> RandomExitRule:
        """The same with only the first `exits` exits in use."""
        return RandomExitRule(min(exits, self._exits), self._rng)
