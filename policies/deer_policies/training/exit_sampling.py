"""Random exits for training the shared head on histories that mix exits, as early exiting does at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch

from deer_policies.deer.criteria import Candidate
from deer_policies.deer.exits import ALWAYS, Decision
from deer_policies.errors import ConfigError
from deer_policies.training.recipe import Optimisation


def exit_shares(settings: Optimisation, exits: int) -> tuple[float, ...]:
    """The relative chance of each exit to be drawn.

    Raises:
        ConfigError: if the settings have shares for another number of exits.
    """
    shares = settings.exit_shares or (1.0,) * exits
    if len(shares) != exits:
        raise ConfigError(f"exit_shares has {len(shares)} shares and the policy {exits} exits; give one for each")
    return shares


def _drawn(shape: tuple[int, int], shares: Sequence[float], generator: torch.Generator) -> torch.Tensor:
    if len(set(shares)) == 1:
        return torch.randint(len(shares), shape, generator=generator)
    drawn = torch.multinomial(torch.tensor(shares), shape[0] * shape[1], replacement=True, generator=generator)
    return drawn.view(shape)


def uniform_exits(batch: int, window: int, shares: Sequence[float], generator: torch.Generator) -> torch.Tensor:
    """An exit drawn for every sample and step on its own (the paper's first sampling): (batch, window) int64."""
    return _drawn((batch, window), shares, generator)


def segment_exits(
    batch: int, window: int, shares: Sequence[float], generator: torch.Generator, official: bool = False
) -> torch.Tensor:
    """One exit up to a random step and another one after it (the paper's second sampling): (batch, window) int64.

    The step is drawn for each sample; the released code draws one for the whole batch, as `official` does.
    """
    boundary = torch.randint(1, window + 1, (1 if official else batch, 1), generator=generator)
    drawn = _drawn((batch, 2), shares, generator)
    in_first = torch.arange(window).expand(batch, window) < boundary
    return torch.where(in_first, drawn[:, :1], drawn[:, 1:])


def draw_exits(
    samplings: Iterable[str],
    batch: int,
    window: int,
    shares: Sequence[float],
    generator: torch.Generator,
    official: bool = False,
) -> dict[str, torch.Tensor]:
    """The exits of each sampling by its name, 'uniform' or 'segments'; `official` as in `segment_exits`.

    `shares` are the relative chances of the exits, see `exit_shares`.
    """
    samplers: dict[str, Callable[..., torch.Tensor]] = {
        "uniform": uniform_exits,
        "segments": partial(segment_exits, official=official),
    }
    return {name: samplers[name](batch, window, shares, generator) for name in samplings}


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
