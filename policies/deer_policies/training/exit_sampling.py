"""Random exits for training the shared head on histories that mix exits, as early exiting does at run time."""

from __future__ import annotations

import torch


def uniform_exits(batch: int, window: int, exits: int, generator: torch.Generator) -> torch.Tensor:
    """An exit drawn for every sample and step on its own (the paper's first sampling): (batch, window) int64."""
    return torch.randint(exits, (batch, window), generator=generator)


def segment_exits(batch: int, window: int, exits: int, generator: torch.Generator) -> torch.Tensor:
    """One exit up to a random step and another one after it (the paper's second sampling): (batch, window) int64.

    The step is drawn for each sample, where the official code draws one for the whole batch.
    """
    boundary = torch.randint(1, window + 1, (batch, 1), generator=generator)
    drawn = torch.randint(exits, (batch, 2), generator=generator)
    in_first = torch.arange(window).expand(batch, window) < boundary
    return torch.where(in_first, drawn[:, :1], drawn[:, 1:])


def gather_exits(features: torch.Tensor, exits: torch.Tensor) -> torch.Tensor:
    """Picks the feature of the drawn exit: features (exits, batch, window, dim), exits (batch, window) -> (batch, window, dim)."""
    index = exits.to(features.device)[None, :, :, None].expand(1, *exits.shape, features.shape[-1])
    return features.gather(0, index)[0]
