"""Before it learns to act, a vision encoder that is trained from scratch learns to tell where things are.

The official policy starts from a pretrained vision encoder and resampler. The small one has neither.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from deer_policies.deer.backbone import DeerModel
from deer_policies.training.arithmetic import cpu_attention, mixed_precision
from deer_policies.training.augmentation import jitter_clips
from deer_policies.training.drawing import torch_seed
from deer_policies.training.episodes import Episode
from deer_policies.training.optimiser import one_cycle
from deer_policies.training.recipe import Optimisation, PretrainingPhase
from deer_policies.training.scene_readout import SceneReadout

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 100


def pretrain_vision(
    model: DeerModel,
    readout: SceneReadout,
    episodes: Sequence[Episode],
    phase: PretrainingPhase,
    settings: Optimisation,
    seed: int,
) -> None:
    """Trains vision and resampler in place to have the scene read from their latents; the rest stays as it is.

    Args:
        model: with its initial weights, on any device.
        readout: on the same device; trained as well.
        episodes: whose frames are drawn, all alike.
        phase: how long and how fast.
        settings: for brightness and tint, clipping, weight decay and precision.
        seed: of the draws.
    """
    device = model.embedding.weight.device
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(torch_seed((seed,)))
    first_of = np.cumsum([0, *(len(episode.images) for episode in episodes)])
    trained = [parameter for part in (model.vision, model.resampler, readout) for parameter in part.parameters()]
    optimiser = torch.optim.AdamW(trained, phase.learning_rate, weight_decay=settings.weight_decay)
    schedule = one_cycle(optimiser, phase)
    losses: list[float] = []
    for step in range(1, phase.steps + 1):
        drawn = rng.integers(first_of[-1], size=phase.batch)
        places = [(int(np.searchsorted(first_of, frame, "right")) - 1, frame) for frame in drawn]
        frames = [(episodes[index], int(frame - first_of[index])) for index, frame in places]
        images = torch.from_numpy(np.stack([episode.images[frame] for episode, frame in frames])[:, None])
        images = jitter_clips(images, settings.brightness, settings.tint, generator)[:, 0]
        scene, landmarks = (
            torch.from_numpy(np.stack([getattr(episode, name)[frame] for episode, frame in frames])).to(device)
            for name in ("scene", "landmarks")
        )
        with mixed_precision(device, settings.precision), cpu_attention(device):
            patches = model.patches(images.to(device))
            loss = readout.loss(
                model.landmarks_in(patches), model.media_of(patches), scene, landmarks, torch.ones_like(scene[:, 0])
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % LOG_EVERY_STEPS == 0 or step == phase.steps:
            logger.info("vision: step %d/%d, loss %.4f", step, phase.steps, np.mean(losses[-LOG_EVERY_STEPS:]))
