"""What is trained and how fast: the parts of a model, parameter groups of AdamW, and the learning rate's schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from deer_policies.deer.backbone import DeerModel
from deer_policies.training.recipe import Optimisation, Phase, PretrainingPhase

HEADS = "heads"
DECAYED_IN_THE_RELEASE = ".cross_attention.feed_forward.norm.weight"
"""Not a matrix, but a norm whose name there does not say so."""


def part_of(name: str) -> str:
    """The part that a parameter belongs to: 'heads' or one of `recipe.PARTS`."""
    if name.startswith(("head.", "auxiliary_heads.")):
        return HEADS
    if name.startswith("layers."):
        return "cross_attention" if ".cross_attention." in name else "decoder"
    return name.split(".", 1)[0]


def make_optimiser(
    model: DeerModel, phase: Phase, settings: Optimisation, readouts: nn.Module | None = None
) -> torch.optim.AdamW:
    """AdamW over what the phase trains, and over the readouts beside the model; everything else is frozen.

    Each group has its factor of the learning rate under 'scale', see `set_rates`.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        frozen = part != HEADS and (phase.heads_only or part in (*settings.frozen, *phase.frozen))
        parameter.requires_grad_(not frozen)
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim >= 2 or (model.config.official and name.endswith(DECAYED_IN_THE_RELEASE))
        decays = matrix and (settings.decayed == "all" or part == settings.decayed)
        scale = phase.head_rate_scale if part == HEADS else 1.0
        groups.setdefault((settings.weight_decay if decays else 0.0, scale), []).append(parameter)
    entries = [
        {"params": parameters, "weight_decay": decay, "scale": scale} for (decay, scale), parameters in groups.items()
    ]
    if readouts is not None:
        entries.append({"params": list(readouts.parameters()), "weight_decay": settings.weight_decay, "scale": 1.0})
    return torch.optim.AdamW(entries, lr=phase.learning_rate, betas=(0.9, 0.999), fused=True)


def scheduled_rate(phase: Phase, step: int) -> float:
    """Learning rate of an update, counted from 0: a linear warm-up, times a constant or a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(phase.warmup_steps, 1))
    course = 1.0 if phase.schedule == "constant" else 0.55 + 0.45 * math.cos(math.pi * step / phase.steps)
    return phase.learning_rate * (warm * course)


def set_rates(optimiser: torch.optim.Optimizer, phase: Phase, step: int) -> float:
    """Sets the rate of every group for an update; returns the one without a group's factor."""
    rate = scheduled_rate(phase, step)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def one_cycle(optimiser: torch.optim.Optimizer, phase: PretrainingPhase) -> torch.optim.lr_scheduler.OneCycleLR:
    """The rate of a pretraining phase: up to its peak within a tenth of the steps, then down to next to nothing."""
    # With a tenth of ten steps to the digit, PyTorch divides by zero.
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, phase.learning_rate, phase.steps, pct_start=0.1 + 1e-6)
