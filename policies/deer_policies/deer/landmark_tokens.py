"""Tokens of things that are looked for in a view: where each one is, whether it is there, and what it looks like.

A resampler of a few layers that starts from random weights is slow to learn to carry places through its attention.
Here each token's attention is that of one thing, which can be trained directly where the data tell the places, and the
token holds the place itself, finer than a patch (a soft-argmax, as in Levine et al., arXiv 1504.00702).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

PLACE_WAVES = 4
PLACE_VALUES = 4 * PLACE_WAVES + 3
"""Numbers that tell a place: sines and cosines of column and row, both as they are, and whether it is seen."""
_READ = 3


@dataclass(frozen=True)
class Found:
    """Where landmarks were found.

    Attributes:
        logits: (batch, landmarks, tokens + 1) float32, of each patch to be the landmark's, then of its being in none.
        place: (batch, landmarks, 2) float32, expected column and row as shares of the picture, from its top left.
    """

    logits: torch.Tensor
    place: torch.Tensor


class LandmarkTokens(nn.Module):
    """One token for each landmark of a view."""

    def __init__(self, dim: int, side: int, count: int) -> None:
        """Args:
        dim: of patch tokens, and of those that are made.
        side: patches along each edge of the square picture.
        count: landmarks.
        """
        super().__init__()
        self.side = side
        self.find = nn.Linear(dim, _READ * count)
        self.absent = nn.Parameter(torch.zeros(count))
        self.identity = nn.Parameter(torch.randn(count, dim))
        self.place = nn.Linear(PLACE_VALUES, dim, bias=False)
        self.appearance = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def found(self, tokens: torch.Tensor) -> Found:
        """(batch, side * side, dim) -> where each landmark is among them."""
        read = self.find(tokens).float().unflatten(-1, (-1, _READ))
        logits = read[..., 0].transpose(1, 2)
        cells = torch.arange(self.side, device=tokens.device, dtype=torch.float32) + 0.5
        rows, columns = torch.meshgrid(cells, cells, indexing="ij")
        centres = torch.stack([columns.flatten(), rows.flatten()], dim=-1)[:, None]
        places = (centres + 0.5 * read[..., 1:]) / self.side
        expected = (logits.softmax(-1).transpose(1, 2)[..., None] * places).sum(1)
        absent = self.absent.float()[None, :, None].expand(tokens.shape[0], -1, 1)
        return Found(torch.cat([logits, absent], dim=-1), expected)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, side * side, dim) -> (batch, landmarks, dim)."""
        found = self.found(tokens)
        among = found.logits[..., :-1].softmax(-1).to(tokens.dtype)
        seen = 1.0 - found.logits.softmax(-1)[..., -1:]
        told = _told(found.place, seen, self.side).to(self.place.weight.dtype)
        return self.norm(self.identity + self.place(told) + self.appearance(among @ tokens))


def _told(place: torch.Tensor, seen: torch.Tensor, side: int) -> torch.Tensor:
    """Place (.., 2) and whether it is seen (.., 1) as numbers that a linear map can use: (.., PLACE_VALUES)."""
    centred = 2.0 * place - 1.0
    steps = torch.arange(PLACE_WAVES, device=place.device, dtype=torch.float32) / max(PLACE_WAVES - 1, 1)
    rates = math.pi * torch.exp2(steps * math.log2(max(side, 2) / 2))
    angles = (centred[..., None] * rates).flatten(-2)
    return torch.cat([angles.sin(), angles.cos(), centred, seen], dim=-1)
