"""The segments that a control step runs, plain tensors in and out, so that each can be compiled or exported alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from deer_policies.deer.action_head import ActionHead
from deer_policies.deer.config import PreprocessConfig
from deer_policies.deer.resampler import Resampler
from deer_policies.deer.vision import VisionEncoder


def max_pooled(x: torch.Tensor, mask: torch.Tensor, over_padding: bool) -> torch.Tensor:
    """Maximum over the text tokens in `mask` (batch, tokens), or over all: (batch, tokens, dim) -> (batch, dim)."""
    if not over_padding:
        x = x.masked_fill(~mask[..., None], float("-inf"))
    return x.amax(dim=1)


class Normalisation(nn.Module):
    """Pixels to what the vision encoder takes."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, config: PreprocessConfig) -> None:
        super().__init__()
        self.config = config
        self.set_constants()

    def set_constants(self) -> None:
        """Takes mean and standard deviation from the configuration; weights don't hold them."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.config.mean, self.config.std))
        self.register_buffer("scale", 1.0 / (255.0 * std), persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images (..., 3, height, width) -> normalised float; float images count as normalised already."""
        if images.dtype != torch.uint8:
            return images
        return torch.addcmul(self.offset, images.to(self.scale.dtype), self.scale)


class Encode(nn.Module):
    """Images to visual latents, each view by itself, so that one that has not changed can be left out."""

    def __init__(self, normalised: Normalisation, vision: VisionEncoder, resampler: Resampler) -> None:
        super().__init__()
        self.normalised = normalised
        self.vision = vision
        self.resampler = resampler

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(images, 3, height, width), uint8 or normalised float -> (images, latents, vision dim)."""
        return self.resampler(self.vision(self.normalised(images)))


class LayersToExit(nn.Module):
    """Language model layers from behind one exit up to the next, and the pooled feature there.

    Cross-attention keys and values are computed here and not with the images: for layers that an exit leaves out they
    would be work for nothing (12 % of a layer of OpenFlamingo-3B), and kept for views that are not encoded again they
    could save 0.9 % of a full step, of which the views themselves are 93 %.
    """

    def __init__(self, layers: Iterable[nn.Module], over_padding: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.over_padding = over_padding

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor, media: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: (batch, tokens, dim), the embedded text or what the segment before gave.
            mask, bias: of the text; see `backbone.Text`.
            media: (batch, views * latents, vision dim).

        Returns:
            hidden states (batch, tokens, dim) and pooled feature (batch, dim).
        """
        for layer in self.layers:
            x = layer(x, bias, media)
        return x, max_pooled(x, mask, self.over_padding)


@dataclass(frozen=True)
class StepSegments:
    """All segments of a step; they share their modules with the model that they are of.

    Attributes:
        encode: images to latents.
        layers: up to the layer before the first exit, then up to each exit.
        head: the action head, with a window of one; its state is a value that export takes apart into tensors.
    """

    encode: Encode
    layers: tuple[LayersToExit, ...]
    head: ActionHead
