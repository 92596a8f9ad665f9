"""The training objective: one loss for each head, on features of all exits at once (DeeR, arXiv 2411.02359).

The shared head runs once for each sampling of random exits; each exit has an auxiliary head beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.training.exit_sampling import gather_exits
from deer_policies.training.losses import action_loss
from deer_policies.training.recipe import Optimisation

AUXILIARY = "auxiliary_"


@dataclass(frozen=True)
class Batch:
    """One update's input, with everything drawn that is drawn at random (dropout aside).

    Attributes:
        images: (batch, window, views, 3, height, width), uint8, or float that is normalised already.
        token_ids, token_mask: (batch, tokens) int64 and bool.
        proprioception: (batch, window, 15).
        target: (batch, window, 7), labels.
        weight: (batch, window), 1 for a real step and 0 for padding.
        starts: (batch,) bool, where the recurrent state starts anew.
        exits: of each sampling, (batch, window) int64.
    """

    images: torch.Tensor
    token_ids: torch.Tensor
    token_mask: torch.Tensor
    proprioception: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    starts: torch.Tensor
    exits: Mapping[str, torch.Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        tensors = {item.name: getattr(self, item.name).to(device) for item in fields(self) if item.name != "exits"}
        return Batch(**tensors, exits=self.exits)


def head_losses(
    model: DeerModel, batch: Batch, states: Mapping[str, HeadState], settings: Optimisation
) -> tuple[dict[str, torch.Tensor], dict[str, HeadState]]:
    """The mean loss of each head over the batch's steps.

    Args:
        model: in training or evaluation mode.
        batch: on the model's device.
        states: of the recurrent heads before the window, by head; empty at the start of episodes.
        settings: which heads, and the gripper's factor.

    Returns:
        Scalars by head ('uniform', 'segments', 'auxiliary_0', ...), and the states after the window, without gradients.
    """
    half = settings.precision == "bfloat16"
    with torch.autocast(batch.weight.device.type, torch.bfloat16, enabled=half):
        features = model.features(batch.images, batch.token_ids, batch.token_mask)[1:]
        runs: list[tuple[str, torch.nn.Module, torch.Tensor]] = [
            (name, model.head, gather_exits(features, exits)) for name, exits in batch.exits.items()
        ]
        if settings.auxiliary_weight > 0.0:
            runs += [(f"{AUXILIARY}{k}", head, features[k]) for k, head in enumerate(model.auxiliary_heads)]
        losses, after = {}, {}
        for name, head, feature in runs:
            state = states.get(name)
            if state is not None:
                state = state.kept(~batch.starts)
            pose, gripper_logit, state = head(feature, batch.proprioception, state)
            after[name] = state.detached()
            losses[name] = action_loss(pose, gripper_logit, batch.target, batch.weight, settings.gripper_weight)
    return losses, after


def total_loss(losses: Mapping[str, torch.Tensor], settings: Optimisation) -> torch.Tensor:
    """The scalar to minimise: all heads added, auxiliary ones by their factor."""
    factors = {name: settings.auxiliary_weight if name.startswith(AUXILIARY) else 1.0 for name in losses}
    return torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
