"""Reads the scene from the pictures while a policy is trained, so that vision tells where things are; not kept.

Actions alone tell a vision encoder that starts from random weights little: which of the objects matters changes with
the instruction. Where each object is, the simulator knows for every image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.config import DeerConfig

SMALLEST_STD = 0.01
"""In m, or as a share of a turn or a switch: what hardly changes in the data is not blown up."""
_LANDMARK_OUTPUTS = 3


class SceneReadout(nn.Module):
    """Linear maps from the patch tokens to landmarks in the picture, and from the latents to the scene's values."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: DeerConfig, scene: torch.Tensor, landmarks: int) -> None:
        """Args:
        config: of the policy.
        scene: (steps, values) of the training data, for the normalisation.
        landmarks: how many there are in each picture.
        """
        super().__init__()
        self._side = config.vision.image_size // config.vision.patch_size
        self.register_buffer("mean", scene.mean(0))
        self.register_buffer("std", scene.std(0).clamp(min=SMALLEST_STD))
        self.values = nn.Linear(config.views * config.resampler.latents * config.vision.dim, scene.shape[1])
        self.landmarks = nn.Linear(config.vision.dim, _LANDMARK_OUTPUTS * landmarks)

    def loss(
        self,
        patches: torch.Tensor,
        media: torch.Tensor,
        scene: torch.Tensor,
        landmarks: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """Scalar: mean Huber loss of the normalised values, and cross-entropy and Huber loss of the landmarks' places.

        Args:
            patches: (steps, views, tokens, dim).
            media: (steps, views * latents, dim).
            scene: (steps, values).
            landmarks: (steps, views, landmarks, 3): column and row as shares of the picture, and 1 where it is in it.
            weight: (steps,), 1 for a real step and 0 for padding.
        """
        error = (self.values(media.flatten(1)).float() * self.std + self.mean - scene) / self.std
        values = _mean(F.huber_loss(error, torch.zeros_like(error), reduction="none").mean(-1), weight)
        return values + self._landmark_loss(patches, landmarks, weight)

    def _landmark_loss(self, patches: torch.Tensor, landmarks: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Each landmark: in which cell of the patch grid it is, and where in the cell."""
        read = self.landmarks(patches).float().unflatten(-1, (-1, _LANDMARK_OUTPUTS)).movedim(-2, 2)
        place = landmarks[..., :2] * self._side
        cell = place.floor().clamp(max=self._side - 1)
        index = (cell[..., 1] * self._side + cell[..., 0]).long()
        where = F.cross_entropy(read[..., 0].flatten(0, 2), index.flatten(), reduction="none").view_as(index)
        there = read[..., 1:].gather(3, index[..., None, None].expand(-1, -1, -1, 1, 2)).squeeze(3)
        within = F.huber_loss(there, 2.0 * (place - cell) - 1.0, reduction="none").mean(-1)
        return _mean(where + within, landmarks[..., 2] * weight[:, None, None])


def _mean(losses: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)
