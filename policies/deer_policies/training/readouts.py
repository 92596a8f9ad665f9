"""What is read beside the actions while a policy is trained: the scene, and what the instruction is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from deer_policies.deer.landmark_tokens import Found
from deer_policies.training.focus_readout import FocusReadout
from deer_policies.training.scene_readout import SceneReadout

if TYPE_CHECKING:
    from deer_policies.training.objective import Batch

SCENE, FOCUS = "scene", "focus"


class Readouts(nn.Module):
    """Those of a recipe; their weights are trained with the policy and not kept."""

    def __init__(self, scene: SceneReadout | None = None, focus: FocusReadout | None = None) -> None:
        super().__init__()
        self.scene = scene
        self.focus = focus

    def losses(
        self, batch: Batch, found: Found | None, media: torch.Tensor, features: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Scalars by name, of the readouts that there are.

        Args:
            batch: what is to be read.
            found: the landmarks of batch * window * views; None if the policy looks for none.
            media: (batch * window, views * latents, dim).
            features: (exits, batch, window, dim).
        """
        steps, losses = batch.weight.amax(-1), {}
        if self.scene is not None:
            wanted = batch.scene.flatten(0, 1), batch.landmarks.flatten(0, 1)
            losses[SCENE] = self.scene.loss(found, media, *wanted, steps.flatten())
        if self.focus is not None:
            losses[FOCUS] = self.focus.loss(features, batch.focus, steps)
        return losses
