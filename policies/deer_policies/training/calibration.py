"""Criterion values on episodes kept apart from training, for the exit thresholds to be solved from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.thresholds import Calibration, action_values
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.training.episodes import Episode
from deer_policies.training.exit_sampling import uniform_exits


@torch.no_grad()
def calibrate(
    model: DeerModel, tokenizer: Tokenizer, episodes: Iterable[Episode], seed: int, source: dict[str, object]
) -> Calibration:
    """Distances between adjacent exits at every step of the episodes, on histories that mix exits at random.

    The histories run from the start of each episode, where the official code takes windows of 12 steps from a zero
    state and steps 5 to 10 of them; and images are not augmented here.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        episodes: not used for training.
        seed: of the exits and wordings that are drawn.
        source: what the episodes are, kept with the values.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    exits = len(model.exit_layers)
    parts = []
    for episode in episodes:
        ids, mask = tokenizer.encode_batch([episode.instructions[rng.integers(len(episode.instructions))]])
        features = model.features(torch.from_numpy(episode.images)[None], ids, mask)
        drawn = uniform_exits(1, len(episode.images), exits, generator)
        proprioception = torch.from_numpy(episode.proprioception)[None]
        values, _ = action_values(model.head, features, proprioception, drawn)
        parts.append(values[:, 0])
    return Calibration(torch.cat(parts, dim=1), "action", dict(source))
