"""What a step costs, counted exactly from the configuration, and which exits a budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import ENCODED_PROPRIOCEPTION, DeerConfig
from deer_policies.deer.landmark_tokens import PLACE_VALUES
from deer_policies.deer.precision import FLOAT32, Precision, Storage
from deer_policies.errors import BudgetError
from deer_policies.interfaces import POSE_SIZE, Budget

GIGA = 1e9
GIB = 2.0**30


@dataclass(frozen=True)
class CostModel:
    """Multiply-accumulates (MAC) of matrix products and convolutions, and bytes of weights and activations.

    A MAC is two floating point operations. Norms, activations and softmax are left out, as the paper's counts do.
    """

    config: DeerConfig

    @cached_property
    def vision_mac(self) -> int:
        """Vision encoder on all views."""
        vision = self.config.vision
        dim, tokens = vision.dim, vision.tokens + int(vision.class_token)
        if vision.stem == "patch":
            stem = vision.tokens * 3 * vision.patch_size**2 * dim
        else:
            stem, side, inputs = 0, vision.image_size, 3
            for index, outputs in enumerate(vision.stem_channels):
                side = (side + 1) // 2 if index < vision.halvings else side
                stem += side**2 * 9 * inputs * outputs
                inputs = outputs
        block = tokens * (4 + 2 * vision.mlp_ratio) * dim**2 + 2 * tokens**2 * dim
        return self.config.views * (stem + vision.layers * block)

    @cached_property
    def resampler_mac(self) -> int:
        """Resampler on all views."""
        resampler, dim = self.config.resampler, self.config.vision.dim
        latents, inner = resampler.latents, resampler.heads * resampler.head_dim
        sources = self.config.vision.tokens + latents
        layer = (
            2 * latents * dim * inner
            + 2 * sources * dim * inner
            + 2 * latents * sources * inner
            + 2 * latents * resampler.mlp_ratio * dim**2
        )
        found = resampler.landmarks * dim * (4 * self.config.vision.tokens + PLACE_VALUES + dim)
        return self.config.views * (resampler.layers * layer + found)

    @cached_property
    def head_mac(self) -> int:
        """One run of the action head."""
        head, size = self.config.head, self.config.head.proprioception_dim
        total = ENCODED_PROPRIOCEPTION * size + size**2
        inputs = self.config.language.dim + size
        for _ in range(head.lstm_layers):
            total += 4 * head.lstm_hidden * (inputs + head.lstm_hidden)
            inputs = head.lstm_hidden
        for outputs in (POSE_SIZE * head.horizon, head.horizon):
            sizes = (head.lstm_hidden, *head.mlp_dims, outputs)
            total += sum(a * b for a, b in pairwise(sizes))
        return total

    def layer_mac(self, layer: int, tokens: int) -> int:
        """One language model layer with its cross-attention, on `tokens` text tokens."""
        language, dim = self.config.language, self.config.language.dim
        total = tokens * (4 + 2 * language.mlp_ratio) * dim**2 + 2 * tokens**2 * dim
        if language.has_cross_attention(layer):
            inner = language.cross_attention_heads * language.cross_attention_head_dim
            latents = self.config.views * self.config.resampler.tokens
            total += tokens * (2 * dim * inner + 2 * language.mlp_ratio * dim**2)
            total += latents * self.config.vision.dim * 2 * inner + 2 * tokens * latents * inner
        return total

    def llm_gmac(self, exit_index: int, tokens: int | None = None) -> float:
        """Language model layers up to an exit, in 1e9 MAC; `tokens` defaults to the reference length."""
        tokens = self.config.language.reference_tokens if tokens is None else tokens
        last = self.config.language.exit_layers[exit_index]
        return sum(self.layer_mac(layer, tokens) for layer in range(last + 1)) / GIGA

    def total_gmac(
        self, exit_index: int, tokens: int | None = None, head_runs: int = 1, encoded_views: int | None = None
    ) -> float:
        """Vision and resampler on so many views or on all, layers up to an exit, all runs of the head, in 1e9 MAC."""
        # Every view costs the same.
        views = self.config.views if encoded_views is None else encoded_views
        rest = views * (self.vision_mac + self.resampler_mac) // self.config.views + head_runs * self.head_mac
        return self.llm_gmac(exit_index, tokens) + rest / GIGA

    def parameters(self, exit_index: int) -> int:
        """Weights that must be loaded to run up to an exit, counted on a model without storage."""
        return sum(parameter.numel() for parameter in self.empty_model(exit_index).parameters())

    def empty_model(self, exit_index: int) -> DeerModel:
        """What must be loaded to run up to an exit, without storage."""
        with torch.device("meta"):
            return DeerModel(self.config, auxiliary_heads=False, exits=exit_index + 1)

    def activations(self, tokens: int | None = None) -> int:
        """Numbers alive at the worst moment of a step, from the largest layer of each part, with fused attention.

        A transformer block holds the residual stream before and after attention, queries, keys, values and what was
        attended, and two layers of the feed-forward network, three with 'quick_gelu'. A convolution holds its input and
        output. The images live until the vision encoder is done, the embedded text all the time.

        Args:
            tokens: length of the text; None for the longest that the policy takes.
        """
        vision, resampler, language, views = (
            self.config.vision, self.config.resampler, self.config.language, self.config.views
        )  # fmt: skip
        patches = vision.tokens + int(vision.class_token)
        pixels = 3 * vision.image_size**2
        stem = 0
        if vision.stem == "conv":
            stem = 2 * vision.stem_channels[0] * ((vision.image_size + 1) // 2) ** 2
        wide = vision.mlp_ratio * (3 if vision.activation == "quick_gelu" else 2)
        block = patches * vision.dim * (6 + wide) if vision.layers else 0
        seen = pixels + max(stem, block)
        inner = resampler.heads * resampler.head_dim
        resampled = (patches + resampler.latents) * (2 * vision.dim + 2 * inner)
        cross = 2 * language.cross_attention_heads * language.cross_attention_head_dim
        read = views * resampler.tokens * (vision.dim + cross)
        embedded = (tokens or language.max_tokens) * language.dim
        text = embedded * (8 + 2 * language.mlp_ratio)
        return max(embedded + views * max(seen, resampled), read + text)

    def memory_gib(self, exit_index: int, precision: Precision = FLOAT32) -> float:
        """Weights and activations of a policy that goes up to an exit; libraries and their workspaces come on top."""
        weights = Storage(precision, self.empty_model(exit_index)).bytes
        return (weights + self.activations() * precision.dtype.itemsize) / GIB


def enough(cost: float) -> str:
    """A cost in six digits, rounded up: what a message names as the least that works must work."""
    text = f"{cost:.6g}"
    return text if within(cost, float(text)) else f"{cost * (1.0 + 1e-5):.6g}"


def within(cost: float, limit: float) -> bool:
    """Whether a cost is at most a limit, but for the last digits of sums that were added up in another order."""
    return cost <= limit * (1.0 + 1e-9)


def fitting_exits(name: str, limit: float | None, costs: Sequence[float]) -> int:
    """Number of exits, from the shallowest, that cost at most `limit`; all of them for no limit.

    Args:
        name: of the limit, for the message.
        limit: in the unit of `costs`, or None.
        costs: peak cost of a step that stops at each exit, growing with depth.

    Raises:
        BudgetError: if the first exit is too expensive, with what it costs.
    """
    if limit is None:
        return len(costs)
    fitting = sum(within(cost, limit) for cost in costs)
    if fitting == 0:
        raise BudgetError(
            f"budget {name} = {limit:.6g} can't be met: the first exit needs {enough(costs[0])}; allow at least that"
        )
    return fitting


def loadable_exits(budget: Budget, costs: CostModel, precision: Precision = FLOAT32) -> int:
    """Number of exits whose layers are worth loading under the limits on peak computation and memory.

    Raises:
        BudgetError: if even the first exit is too expensive.
    """
    exits = range(len(costs.config.language.exit_layers))
    gmac = [costs.llm_gmac(index) for index in exits]
    allowed = fitting_exits("peak_llm_gmac", budget.peak_llm_gmac, gmac)
    if budget.peak_memory_gib is None:
        return allowed
    gib = [costs.memory_gib(index, precision) for index in exits]
    return min(allowed, fitting_exits("peak_memory_gib", budget.peak_memory_gib, gib))


def blind_exits(config: DeerConfig) -> int:
    """How many first exits come before any layer has seen the images; they are never worth taking."""
    language = config.language
    return sum(
        not any(language.has_cross_attention(layer) for layer in range(last + 1)) for last in language.exit_layers
    )
