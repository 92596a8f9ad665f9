"""The network from images and text to pooled features, layer by layer, together with its action heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from deer_policies.deer.action_head import ActionHead, ProprioceptionEncoder
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.language import DecoderLayer, attention_bias
from deer_policies.deer.resampler import Resampler
from deer_policies.deer.vision import VisionEncoder


@dataclass(frozen=True)
class Text:
    """Embedded instruction.

    Attributes:
        embedding: (batch, tokens, dim).
        mask: (batch, tokens) bool, True for real tokens.
        bias: (batch, heads, tokens, tokens) from `attention_bias`.
    """

    embedding: torch.Tensor
    mask: torch.Tensor
    bias: torch.Tensor

    def repeated(self, window: int) -> Text:
        """Each sample `window` times in a row, for the frames of a clip that share the instruction."""
        if window == 1:
            return self
        return Text(*(part.repeat_interleave(window, dim=0) for part in (self.embedding, self.mask, self.bias)))


class DeerModel(nn.Module):
    """Vision, resampler, language layers, the head that all exits share, and auxiliary heads for training.

    Weights only; whatever changes from step to step is passed in and returned.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, config: DeerConfig, auxiliary_heads: bool = True, exits: int | None = None) -> None:
        """Args:
        config: sizes and options.
        auxiliary_heads: build one more head for each exit, for training.
        exits: build the layers of the first so many exits only; None builds all.
        """
        super().__init__()
        self.config = config
        self.exit_layers = config.language.exit_layers[:exits]
        language = config.language
        self.vision = VisionEncoder(config.vision)
        self.resampler = Resampler(config.vision.dim, config.resampler)
        self.embedding = nn.Embedding(language.vocabulary, language.dim)
        self.layers = nn.ModuleList(
            DecoderLayer(language, config.vision.dim, index) for index in range(config.layers_to_load(exits))
        )
        self.head = ActionHead(language.dim, config.head)
        count = len(self.exit_layers) if auxiliary_heads else 0
        self.auxiliary_heads = nn.ModuleList(ActionHead(language.dim, config.head) for _ in range(count))
        for name, constant in self._constants(config).items():
            self.register_buffer(name, constant, persistent=False)

    @classmethod
    def from_weights(
        cls,
        config: DeerConfig,
        weights: Mapping[str, torch.Tensor],
        auxiliary_heads: bool = True,
        exits: int | None = None,
    ) -> DeerModel:
        """A model with these tensors as its weights; nothing is copied and no time is spent on initial values.

        Raises:
            RuntimeError: if a tensor is missing, unexpected or misshapen.
        """
        with torch.device("meta"):
            model = cls(config, auxiliary_heads, exits)
        model.load_state_dict(weights, assign=True)
        for name, constant in cls._constants(config).items():
            model.register_buffer(name, constant, persistent=False)
        for module in model.modules():
            if isinstance(module, ProprioceptionEncoder):
                module.set_constants()
        return model

    @staticmethod
    def _constants(config: DeerConfig) -> dict[str, torch.Tensor]:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.preprocess.mean, config.preprocess.std))
        return {"scale": 1.0 / (255.0 * std), "offset": -mean / std}

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images (..., 3, height, width) -> normalised float; float images count as normalised already."""
        if images.dtype != torch.uint8:
            return images
        return torch.addcmul(self.offset, images.to(self.scale.dtype), self.scale)

    def media(self, images: torch.Tensor) -> torch.Tensor:
        """Visual latents: images (batch, views, 3, height, width) -> (batch, views * latents, vision dim)."""
        batch, views = images.shape[:2]
        tokens = self.vision(self.normalised(images.flatten(0, 1)))
        latents = self.resampler(tokens)
        return latents.view(batch, views * latents.shape[1], latents.shape[2])

    def text(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> Text:
        """token_ids (batch, tokens) int64, token_mask (batch, tokens) bool -> `Text`."""
        bias = attention_bias(token_mask, self.config.language.heads, self.embedding.weight.dtype)
        return Text(self.embedding(token_ids), token_mask, bias)

    def run_layers(self, x: torch.Tensor, text: Text, media: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Hidden states (batch, tokens, dim) from the input of layer `first` to the output of layer `last`."""
        for index in range(first, last + 1):
            x = self.layers[index](x, text.bias, media)
        return x

    def exit_features(self, text: Text, media: torch.Tensor) -> Iterator[torch.Tensor]:
        """Pooled features (batch, dim): of the layer before the first exit, then of each exit.

        A layer runs when the feature behind it is asked for, so whoever stops asking stops the computation.
        """
        x, first = text.embedding, 0
        for last in (self.exit_layers[0] - 1, *self.exit_layers):
            x = self.run_layers(x, text, media, first, last)
            yield self.pooled(x, text.mask)
            first = last + 1

    def pooled(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Maximum over real text tokens, under official compatibility over padded ones too.

        x (batch, tokens, dim), mask (batch, tokens) -> (batch, dim).
        """
        if not self.config.official:
            x = x.masked_fill(~mask[..., None], float("-inf"))
        return x.amax(dim=1)

    def features(self, images: torch.Tensor, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """All pooled features of clips at once, for training and for exit thresholds.

        Args:
            images: (batch, window, views, 3, height, width), uint8 or normalised float.
            token_ids, token_mask: (batch, tokens); one instruction a clip.

        Returns:
            (exits + 1, batch, window, dim); entry 0 is the layer before the first exit (the pseudo exit).
        """
        batch, window = images.shape[:2]
        media = self.media(images.flatten(0, 1))
        text = self.text(token_ids, token_mask).repeated(window)
        return torch.stack(list(self.exit_features(text, media))).unflatten(1, (batch, window))
