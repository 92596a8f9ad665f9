"""Reads what an instruction is about from the features of every exit while a policy is trained; not kept.

Far from its goal an action only tells the direction, and so little of where the goal is. The place of the block, handle
or button that the instruction is about, asked for at every exit, teaches the words to find it in the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.config import DeerConfig
from deer_policies.training.scene_readout import SMALLEST_STD


class FocusReadout(nn.Module):
    """A linear map at each exit, from the pooled feature to the values of the thing, normalised."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: DeerConfig, focus: torch.Tensor) -> None:
        """Args:
        config: of the policy.
        focus: (steps, values) of the training data, for the normalisation.
        """
        super().__init__()
        self.register_buffer("mean", focus.mean(0))
        self.register_buffer("std", focus.std(0).clamp(min=SMALLEST_STD))
        exits = len(config.language.exit_layers)
        self.exits = nn.ModuleList(nn.Linear(config.language.dim, focus.shape[1]) for _ in range(exits))

    def loss(self, features: torch.Tensor, focus: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Mean Huber loss of the normalised values over exits and steps with weight, as a scalar.

        Args:
            features: (exits, batch, window, dim).
            focus: (batch, window, values).
            weight: (batch, window), 1 for a real step and 0 for padding.
        """
        read = torch.stack([linear(feature) for linear, feature in zip(self.exits, features, strict=True)]).float()
        wanted = ((focus - self.mean) / self.std).expand_as(read)
        losses = F.huber_loss(read, wanted, reduction="none").mean((0, -1))
        return (losses * weight).sum() / weight.sum().clamp(min=1.0)
