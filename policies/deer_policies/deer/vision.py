"""Vision encoder: one camera image becomes patch tokens (CLIP's transformer behind a patch or convolution stem)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.attention import attend
from deer_policies.deer.config import VisionConfig

STEM_NORM_GROUPS = 4


class ConvStem(nn.Sequential):
    """3x3 convolutions; all but the last are followed by GroupNorm and GELU."""

    def __init__(self, channels: tuple[int, ...], halvings: int) -> None:
        """Args:
        channels: outputs of each convolution.
        halvings: how many of them, the first ones, have stride 2.
        """
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(zip((3, *channels), channels, strict=False)):
            last = index == len(channels) - 1
            stride = 2 if index < halvings else 1
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=last))
            if not last:
                layers += [nn.GroupNorm(STEM_NORM_GROUPS, outputs), nn.GELU()]
        super().__init__(*layers)


class VisionBlock(nn.Module):
    """Pre-LN transformer block with biases (CLIP)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, activation: str) -> None:
        super().__init__()
        self.heads = heads
        self.quick = activation == "quick_gelu"
        self.norm_1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_2 = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, mlp_ratio * dim)
        self.down = nn.Linear(mlp_ratio * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, dim) -> the same shape."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = attend(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, dim))
        hidden = self.up(self.norm_2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
        return x + self.down(hidden)


def waves(side: int, dim: int) -> torch.Tensor:
    """Sines and cosines of column and row of a square grid, from one wave to `side` / 2 waves: (side * side, dim).

    What a position embedding begins with: attention reads a place from it at once, and from random numbers it can't.
    """
    place = torch.linspace(-1.0, 1.0, side)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    rates = math.pi * torch.logspace(0.0, math.log2(max(side, 2) / 2), dim // 4, base=2.0)
    angles = torch.cat([columns.reshape(-1, 1) * rates, rows.reshape(-1, 1) * rates], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class VisionEncoder(nn.Module):
    """Patch tokens of the last layer, without final norm and projection, as OpenFlamingo's resampler takes them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.stem: nn.Module
        if config.stem == "conv":
            self.stem = ConvStem(config.stem_channels, config.halvings)
        else:
            self.stem = nn.Conv2d(3, config.dim, config.patch_size, stride=config.patch_size, bias=False)
        positions = config.tokens + int(config.class_token)
        self.class_embedding = nn.Parameter(torch.randn(config.dim) * 0.02) if config.class_token else None
        if config.class_token or config.dim % 4:
            self.position_embedding = nn.Parameter(torch.randn(positions, config.dim) * 0.02)
        else:
            self.position_embedding = nn.Parameter(waves(config.side, config.dim))
        self.norm_in = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            VisionBlock(config.dim, config.heads, config.mlp_ratio, config.activation) for _ in range(config.layers)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (batch, 3, height, width) -> patch tokens (batch, tokens, dim), floats like the weights."""
        x = self.stem(images.to(self.position_embedding.dtype)).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            first = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
            x = torch.cat([first, x], dim=1)
        x = self.norm_in(x + self.position_embedding)
        for block in self.blocks:
            x = block(x)
        return x[:, 1:] if self.class_embedding is not None else x
