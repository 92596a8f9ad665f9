"""The network from images and text to pooled features, layer by layer, together with its action heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from deer_policies.deer.action_head import ActionHead, ProprioceptionEncoder
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.landmark_tokens import Found
from deer_policies.deer.language import DecoderLayer, alibi_slopes, attention_bias
from deer_policies.deer.resampler import Resampler
from deer_policies.deer.segments import Encode, LayersToExit, Normalisation, StepSegments, max_pooled
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

    Weights only; whatever changes from step to step is passed in and returned. Training, parity and run time all run
    the same `segments`.
    """

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
        self.normalised = Normalisation(config.preprocess)
        self.vision = VisionEncoder(config.vision)
        fused = not config.official
        self.resampler = Resampler(config.vision.dim, config.resampler, config.vision.side, fused)
        self.embedding = nn.Embedding(language.vocabulary, language.dim)
        self.layers = nn.ModuleList(
            DecoderLayer(language, config.vision.dim, index, fused) for index in range(config.layers_to_load(exits))
        )
        self.head = ActionHead(language.dim, config.head)
        count = len(self.exit_layers) if auxiliary_heads else 0
        self.auxiliary_heads = nn.ModuleList(ActionHead(language.dim, config.head) for _ in range(count))
        self.segments = self._segments()

    def _segments(self) -> StepSegments:
        """Held by a value and not by the module, so that every weight has one name."""
        ends = [self.exit_layers[0], *(last + 1 for last in self.exit_layers)]
        parts = [self.layers[first:last] for first, last in pairwise([0, *ends])]
        return StepSegments(
            Encode(self.normalised, self.vision, self.resampler),
            tuple(LayersToExit(part, over_padding=self.config.official) for part in parts),
            self.head,
        )

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
        for module in model.modules():
            if isinstance(module, Normalisation | ProprioceptionEncoder):
                module.set_constants()
        return model

    def media(self, images: torch.Tensor) -> torch.Tensor:
        """Visual latents: images (batch, views, 3, height, width) -> (batch, views * tokens, vision dim)."""
        return self.media_of(self.patches(images))

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Patch tokens: images (batch, views, 3, height, width) -> (batch, views, tokens, vision dim)."""
        return self.vision(self.normalised(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    def media_of(self, patches: torch.Tensor) -> torch.Tensor:
        """Visual latents (batch, views * tokens, vision dim) from patch tokens (batch, views, tokens, vision dim)."""
        return self.resampler(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]).flatten(1, 2)

    def landmarks_in(self, patches: torch.Tensor) -> Found | None:
        """Where the landmarks are in patch tokens (batch, views, tokens, vision dim), views of a sample in a row.

        None for a policy that looks for none.
        """
        landmarks = self.resampler.landmarks
        return None if landmarks is None else landmarks.found(patches.flatten(0, 1))

    def text(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> Text:
        """token_ids (batch, tokens) int64, token_mask (batch, tokens) bool -> `Text`."""
        language = self.config.language
        slopes = alibi_slopes(language.heads, language.interleaved_slopes)
        bias = attention_bias(token_mask, slopes, self.embedding.weight.dtype)
        return Text(self.embedding(token_ids), token_mask, bias)

    def exit_features(self, text: Text, media: torch.Tensor) -> Iterator[torch.Tensor]:
        """Pooled features (batch, dim): of the layer before the first exit, then of each exit.

        A layer runs when the feature behind it is asked for, so whoever stops asking stops the computation.
        """
        x = text.embedding
        for segment in self.segments.layers:
            x, feature = segment(x, text.mask, text.bias, media)
            yield feature

    def pooled(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Maximum over real text tokens, under official compatibility over padded ones too.

        x (batch, tokens, dim), mask (batch, tokens) -> (batch, dim).
        """
        return max_pooled(x, mask, self.config.official)

    def features(self, images: torch.Tensor, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """All pooled features of clips at once, for training and for exit thresholds.

        Args:
            images: (batch, window, views, 3, height, width), uint8 or normalised float.
            token_ids, token_mask: (batch, tokens); one instruction a clip.

        Returns:
            (exits + 1, batch, window, dim); entry 0 is the layer before the first exit (the pseudo exit).
        """
        return self.features_of(self.media(images.flatten(0, 1)), token_ids, token_mask)

    def features_of(self, media: torch.Tensor, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """The same from visual latents (batch * window, views * tokens, vision dim), clip after clip."""
        batch = len(token_ids)
        window = len(media) // batch
        text = self.text(token_ids, token_mask).repeated(window)
        return torch.stack(list(self.exit_features(text, media))).unflatten(1, (batch, window))
