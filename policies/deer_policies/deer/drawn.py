"""Policies with weights drawn at random: as large and as slow as trained ones, to measure what a machine can do."""

from __future__ import annotations

from functools import partial

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel, loadable_exits
from deer_policies.deer.checkpoint import Checkpoint, within_peak
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.precision import Storage, precision_named
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.interfaces import Budget

SCALE = 0.02
"""Standard deviation of matrices; vectors are 1, so that norms pass their input on."""


def drawn_policy(
    config: DeerConfig, device: str | torch.device = "cpu", peak: Budget | None = None, precision: str = "float32"
) -> DeerPolicy:
    """A policy that acts at random, but with the computation, memory and time of a trained one of this configuration.

    Args:
        config: of the policy.
        device: where the weights go.
        peak: layers beyond its peak limits are not made. An average is refused: there is nothing to solve it from.
        precision: how weights are held, a name in `precision.PRECISIONS`.

    Raises:
        BudgetError: if the peak limits don't even allow the first exit.
    """
    return within_peak(partial(_draw, config, device, peak, precision), peak)


def _draw(
    config: DeerConfig, device: str | torch.device, peak: Budget | None, precision: str, exits: int | None = None
) -> Checkpoint:
    """One weight after the other, so that the float32 model never stands in memory."""
    held = precision_named(precision)
    if peak is not None:
        affordable = loadable_exits(peak, CostModel(config), held)
        exits = affordable if exits is None else min(exits, affordable)
    with torch.device("meta"):
        empty = DeerModel(config, auxiliary_heads=False, exits=exits)
    storage, generator = Storage(held, empty), torch.Generator().manual_seed(0)

    def drawn(shape: torch.Size) -> torch.Tensor:
        weight = torch.ones(shape, dtype=held.dtype)
        return weight.normal_(std=SCALE, generator=generator) if len(shape) > 1 else weight

    weights = {name: storage.stored(name, drawn(like.shape), device) for name, like in empty.state_dict().items()}
    model = DeerModel.from_weights(config, weights, auxiliary_heads=False, exits=exits)
    tokenizer = Tokenizer.train(["push the sliding door to the left side"], 300, config.language.max_tokens)
    return Checkpoint(model.to(device), tokenizer)
