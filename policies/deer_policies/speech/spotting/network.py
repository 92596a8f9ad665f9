"""The network of the stop word in PyTorch, to train it; `spotter` runs its exported weights without PyTorch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.speech.features import BANDS
from deer_policies.speech.spotting.config import STEM_KERNEL, SpotterConfig


class SpotterNetwork(nn.Module):
    """Logits of 'the stop word has just ended' for each frame.

    Depthwise convolutions are sums of shifted products, several times faster on a CPU than PyTorch's own.

    Args:
        config: sizes.
    """

    def __init__(self, config: SpotterConfig) -> None:
        super().__init__()
        self.config = config
        channels, blocks = config.channels, len(config.dilations)
        self.stem = nn.Linear(STEM_KERNEL * BANDS, channels, bias=False)
        self.stem_norm = nn.BatchNorm1d(channels)
        self.taps = nn.Parameter(torch.randn(blocks, config.kernel, channels) / config.kernel**0.5)
        self.depthwise_norm = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(blocks))
        self.pointwise = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(blocks))
        self.pointwise_norm = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(blocks))
        self.head = nn.Linear(channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, frames) logits of features (batch, frames, BANDS); before the first frame there is nothing."""
        frames = features.shape[1]
        x = F.pad(features, (0, 0, STEM_KERNEL - 1, 0))
        x = torch.cat([x[:, at : at + frames] for at in range(STEM_KERNEL)], -1)
        x = F.relu(_normed(self.stem_norm, self.stem(x)))
        for number, dilation in enumerate(self.config.dilations):
            y = F.pad(x, (0, 0, (self.config.kernel - 1) * dilation, 0))
            taps = self.taps[number]
            y = sum(
                (y[:, at * dilation : at * dilation + frames] * tap for at, tap in enumerate(taps)), torch.zeros(())
            )
            y = F.relu(_normed(self.depthwise_norm[number], y))
            x = F.relu(x + _normed(self.pointwise_norm[number], self.pointwise[number](y)))
        return self.head(x)[..., 0]

    @torch.no_grad()
    def exported(self) -> dict[str, np.ndarray]:
        """Weights for `Spotter`, with the norms folded in: arrays (inputs, outputs) for each tap, and their biases."""
        found: dict[str, torch.Tensor] = {}
        scale, found["stem.bias"] = _folded(self.stem_norm)
        weight = self.stem.weight * scale[:, None]
        found["stem.weight"] = weight.view(-1, STEM_KERNEL, BANDS).permute(1, 2, 0)
        for at in range(len(self.config.dilations)):
            scale, found[f"depthwise.{at}.bias"] = _folded(self.depthwise_norm[at])
            found[f"depthwise.{at}.weight"] = self.taps[at] * scale
            scale, found[f"pointwise.{at}.bias"] = _folded(self.pointwise_norm[at])
            pointwise = self.pointwise[at]
            assert isinstance(pointwise, nn.Linear)
            found[f"pointwise.{at}.weight"] = (pointwise.weight * scale[:, None]).T
        found["head.weight"], found["head.bias"] = self.head.weight.T, self.head.bias
        return {name: value.contiguous().float().numpy() for name, value in found.items()}


def _normed(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The norm over batch and frames of x (batch, frames, channels)."""
    return norm(x.flatten(0, 1)).view_as(x)


def _folded(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a norm multiplies with and adds, once it is trained."""
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
