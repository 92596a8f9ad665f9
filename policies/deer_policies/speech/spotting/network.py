"""The network of the stop word in PyTorch, to train it; `spotter` runs its exported weights without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.speech.features import WIDE
from deer_policies.speech.spotting import embedding
from deer_policies.speech.spotting.config import STEM_KERNEL, SpotterConfig
from deer_policies.speech.spotting.embedding import DIM, FRAMES, LAYERS, STEP, Layer

FROZEN = 11
"""Layers of the embedding that stay as they came: those at the full rate, which take most of the time."""
DROPPED = 0.1


class SpotterNetwork(nn.Module):
    """Logits of 'the stop word has just ended', one each `STEP` frames from the `FRAMES`-th on.

    Args:
        config: sizes.
        layers: of the speech embedding, as `embedding.read` gives them; None for random ones.
    """

    def __init__(self, config: SpotterConfig, layers: Sequence[tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        super().__init__()
        self.config = config
        self.stack = _Stack(config)
        self.embedding = _Embedding(layers)
        self.norm = nn.BatchNorm1d(DIM)
        self.hidden = nn.Conv1d(DIM + config.channels, config.hidden, config.head_kernel, dilation=config.head_dilation)
        self.hidden_norm = nn.BatchNorm1d(config.hidden)
        self.dropout = nn.Dropout(DROPPED)
        self.head = nn.Linear(config.hidden, 1)
        # Each part alone, so that none leaves the work to the other; they are for training only.
        self.of_stack = nn.Linear(config.channels, 1)
        self.of_embedding = nn.Conv1d(DIM, 1, config.head_kernel, dilation=config.head_dilation)

    def forward(self, wide: torch.Tensor, narrow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, steps) logits of both parts, and (2, batch, steps) of each alone.

        Args:
            wide: (batch, frames, bands) features.
            narrow: (batch, frames, bands) of the same sound; at least `FRAMES` frames.
        """
        return self.judged(wide, self.embedding.begun(narrow))

    def judged(self, wide: torch.Tensor, begun: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, of what the embedding's frozen layers have made of the narrow features."""
        stack = self.stack(wide)[:, FRAMES - 1 :: STEP]
        heard = self.norm(self.embedding.ended(begun))[..., : stack.shape[1]]
        heard = F.pad(heard, ((self.config.head_kernel - 1) * self.config.head_dilation, 0))
        both = torch.cat([heard, F.pad(stack.transpose(1, 2), (heard.shape[2] - stack.shape[1], 0))], 1)
        hidden = F.relu(self.hidden_norm(self.hidden(both)))
        alone = torch.stack([self.of_stack(stack)[..., 0], self.of_embedding(heard)[:, 0]])
        return self.head(self.dropout(hidden.transpose(1, 2)))[..., 0], alone

    @torch.no_grad()
    def exported(self) -> dict[str, np.ndarray]:
        """Weights for `Spotter`, with the norms folded in."""
        found = self.stack.exported()
        scale, bias = _folded(self.norm)
        found["norm.scale"], found["norm.bias"] = scale, bias
        scale, bias = _folded(self.hidden_norm)
        weight = self.hidden.weight * scale[:, None, None]
        assert self.hidden.bias is not None
        found["hidden.weight"] = weight.permute(2, 1, 0)
        found["hidden.bias"] = self.hidden.bias * scale + bias
        found["head.weight"], found["head.bias"] = self.head.weight.T, self.head.bias
        arrays = {name: value.contiguous().float().numpy() for name, value in found.items()}
        layers = [
            (weight.detach().permute(0, 2, 3, 1).numpy(), bias.detach().numpy())
            for weight, bias in zip(self.embedding.weights, self.embedding.biases, strict=True)
        ]
        return {**arrays, **embedding.exported(layers)}


class _Embedding(nn.Module):
    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]] | None) -> None:
        super().__init__()
        if layers is None:
            shapes = [(each.channels, *each.taps, each.channels_in) for each in LAYERS]
            random = np.random.default_rng(0)
            layers = [
                (
                    (random.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32),
                    np.zeros(shape[0], np.float32),
                )
                for shape in shapes
            ]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for at, (weight, bias) in enumerate(layers):
            made = torch.from_numpy(weight.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=torch.channels_last)
            self.weights.append(nn.Parameter(made, requires_grad=at >= FROZEN))
            self.biases.append(nn.Parameter(torch.from_numpy(bias.copy()), requires_grad=at >= FROZEN))

    @torch.no_grad()
    def begun(self, narrow: torch.Tensor) -> torch.Tensor:
        """(batch, channels, steps, bands): what the frozen layers make of narrow features (batch, frames, bands)."""
        return self._through(narrow[:, None].contiguous(memory_format=torch.channels_last), slice(FROZEN))

    def ended(self, begun: torch.Tensor) -> torch.Tensor:
        """(batch, DIM, steps): what the others make of that."""
        return self._through(begun, slice(FROZEN, None))[..., 0]

    def _through(self, x: torch.Tensor, part: slice) -> torch.Tensor:
        for layer, weight, bias in zip(LAYERS[part], self.weights[part], self.biases[part], strict=True):
            x = _convolved(x, layer, weight, bias)
        return x


def _convolved(x: torch.Tensor, layer: Layer, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    x = F.conv2d(x, weight, bias, padding=(0, layer.taps[1] // 2), dilation=(layer.dilation, 1))
    if layer.active:
        x = F.leaky_relu(x, embedding.SLOPE).clamp_min(embedding.LEAST)
    if layer.pool != (1, 1):
        x = F.max_pool2d(x, layer.pool, (layer.stride, layer.pool[1]))
    return x


class _Stack(nn.Module):
    """Depthwise convolutions are sums of shifted products, several times faster on a CPU than PyTorch's own."""

    def __init__(self, config: SpotterConfig) -> None:
        super().__init__()
        self.config = config
        channels, blocks = config.channels, len(config.dilations)
        self.stem = nn.Linear(STEM_KERNEL * WIDE.bands, channels, bias=False)
        self.stem_norm = nn.BatchNorm1d(channels)
        self.taps = nn.Parameter(torch.randn(blocks, config.kernel, channels) / config.kernel**0.5)
        self.depthwise_norm = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(blocks))
        self.pointwise = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(blocks))
        self.pointwise_norm = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(blocks))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, frames, channels) of wide features (batch, frames, bands); before the first frame is nothing."""
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
        return x

    def exported(self) -> dict[str, torch.Tensor]:
        """Arrays (inputs, outputs) for each tap, and their biases."""
        found: dict[str, torch.Tensor] = {}
        scale, found["stem.bias"] = _folded(self.stem_norm)
        weight = self.stem.weight * scale[:, None]
        found["stem.weight"] = weight.view(-1, STEM_KERNEL, WIDE.bands).permute(1, 2, 0)
        for at in range(len(self.config.dilations)):
            scale, found[f"depthwise.{at}.bias"] = _folded(self.depthwise_norm[at])
            found[f"depthwise.{at}.weight"] = self.taps[at] * scale
            scale, found[f"pointwise.{at}.bias"] = _folded(self.pointwise_norm[at])
            pointwise = self.pointwise[at]
            assert isinstance(pointwise, nn.Linear)
            found[f"pointwise.{at}.weight"] = (pointwise.weight * scale[:, None]).T
        return found


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
