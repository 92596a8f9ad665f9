"""Reads the scene from the pictures while a policy is trained, so that vision tells where things are; not kept.

Actions alone tell a vision encoder that starts from random weights little: which of the objects matters changes with
the instruction. Where each object is, the simulator knows for every image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.config import DeerConfig
from deer_policies.deer.landmark_tokens import Found

SMALLEST_STD = 0.01
"""In m, or as a share of a turn or a switch: what hardly changes in the data is not blown up."""


class SceneReadout(nn.Module):
    """A linear map from the visual latents to the scene's values; landmarks tell by themselves where they are."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: DeerConfig, scene: torch.Tensor) -> None:
        """Args:
        config: of the policy.
        scene: (steps, values) of the training data, for the normalisation.
        """
        super().__init__()
        self._side = config.vision.side
        self.register_buffer("mean", scene.mean(0))
        self.register_buffer("std", scene.std(0).clamp(min=SMALLEST_STD))
        self.values = nn.Linear(config.views * config.resampler.tokens * config.vision.dim, scene.shape[1])

    def loss(
        self,
        found: Found | None,
        media: torch.Tensor,
        scene: torch.Tensor,
        landmarks: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """Scalar: mean Huber loss of the normalised values, and cross-entropy and Huber loss of the landmarks' places.

        Args:
            found: where the policy found the landmarks, for steps * views; None leaves them out.
            media: (steps, views * latents, dim).
            scene: (steps, values).
            landmarks: (steps, views, landmarks, 3): column and row as shares of the picture, and 1 where it is in it.
            weight: (steps,), 1 for a real step and 0 for padding.
        """
        error = (self.values(media.flatten(1)).float() * self.std + self.mean - scene) / self.std
        values = _mean(F.huber_loss(error, torch.zeros_like(error), reduction="none").mean(-1), weight)
        if found is None:
            return values
        weights = weight[:, None, None].expand(landmarks.shape[:3]).flatten(0, 1)
        return values + self._landmark_loss(found, landmarks.flatten(0, 1), weights)

    def _landmark_loss(self, found: Found, landmarks: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Each landmark: in which patch it is, or in none; and, in patches, how far off its expected place is."""
        present = landmarks[..., 2]
        place = landmarks[..., :2]
        cell = (place * self._side).floor().clamp(max=self._side - 1)
        none = found.logits.shape[-1] - 1
        index = torch.where(present > 0.0, cell[..., 1] * self._side + cell[..., 0], none).long()
        where = F.cross_entropy(found.logits.flatten(0, 1), index.flatten(), reduction="none").view_as(index)
        off = F.huber_loss(2.0 * self._side * found.place, 2.0 * self._side * place, reduction="none").mean(-1)
        return _mean(where, weight) + _mean(off, present * weight)


def _mean(losses: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)
