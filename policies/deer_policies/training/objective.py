"""The training objective: one loss for each head, on features of all exits at once (DeeR, arXiv 2411.02359).

The shared head runs once for each sampling of random exits; each exit has an auxiliary head beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.training.arithmetic import mixed_precision
from deer_policies.training.exit_sampling import gather_exits
from deer_policies.training.losses import action_loss, distillation_loss
from deer_policies.training.readouts import FOCUS, SCENE, Readouts
from deer_policies.training.recipe import Optimisation

AUXILIARY = "auxiliary_"
DISTILLATION = "distillation"


@dataclass(frozen=True)
class Batch:
    """One update's input, with everything drawn that is drawn at random (dropout aside).

    Attributes:
        images: (batch, window, views, 3, height, width), uint8, or float that is normalised already.
        token_ids, token_mask: (batch, tokens) int64 and bool.
        proprioception: (batch, window, 15).
        target: (batch, window, horizon, 7), labels.
        weight: (batch, window, horizon), 1 for a label, 0 for none and for padding.
        scene: (batch, window, values), what is to be read from the images beside the action; maybe no values.
        landmarks: (batch, window, views, landmarks, 3), where things are in the images; see `SceneReadout.loss`.
        focus: (batch, window, values), what the instruction is about and where it is; maybe no values.
        starts: (batch,) bool, where the recurrent state starts anew.
        exits: of each sampling, (batch, window) int64.
    """

    images: torch.Tensor
    token_ids: torch.Tensor
    token_mask: torch.Tensor
    proprioception: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    scene: torch.Tensor
    landmarks: torch.Tensor
    focus: torch.Tensor
    starts: torch.Tensor
    exits: Mapping[str, torch.Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        tensors = {item.name: getattr(self, item.name).to(device) for item in fields(self) if item.name != "exits"}
        return Batch(**tensors, exits=self.exits)


def head_losses(
    model: DeerModel,
    batch: Batch,
    states: Mapping[str, HeadState],
    settings: Optimisation,
    readouts: Readouts | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, HeadState]]:
    """The mean loss of each head over the batch's steps.

    Args:
        model: in training or evaluation mode.
        batch: on the model's device.
        states: of the recurrent heads before the window, by head; empty at the start of episodes.
        settings: which heads, and the gripper's factor.
        readouts: add the losses 'scene' and 'focus'.

    Returns:
        Scalars by head ('uniform', 'segments', 'auxiliary_0', ...), with `distillation_weight` the mean loss
        'distillation' of all heads but the deepest exit's own one against that one, and the
        states after the window, without gradients.
    """
    with mixed_precision(batch.weight.device, settings.precision):
        patches = model.patches(batch.images.flatten(0, 1))
        media = model.media_of(patches)
        features = model.features_of(media, batch.token_ids, batch.token_mask)[1:]
        runs: list[tuple[str, torch.nn.Module, torch.Tensor]] = [
            (name, model.head, gather_exits(features, exits)) for name, exits in batch.exits.items()
        ]
        if settings.auxiliary_weight > 0.0:
            runs += [(f"{AUXILIARY}{k}", head, features[k]) for k, head in enumerate(model.auxiliary_heads)]
        losses: dict[str, torch.Tensor] = {}
        after: dict[str, HeadState] = {}
        said: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, head, feature in runs:
            state = states.get(name)
            if state is not None:
                state = state.kept(~batch.starts)
            pose, gripper_logit, state = head(feature, batch.proprioception, state)
            after[name], said[name] = state.detached(), (pose, gripper_logit)
            losses[name] = action_loss(pose, gripper_logit, batch.target, batch.weight, settings.gripper_weight)
        if settings.distillation_weight > 0.0:
            *imitating, (_, teacher) = said.items()
            against = [
                distillation_loss(*head, *teacher, batch.weight, settings.gripper_weight) for _, head in imitating
            ]
            losses[DISTILLATION] = torch.stack(against).mean()
        if readouts is not None:
            losses |= readouts.losses(batch, model.landmarks_in(patches), media, features)
    return losses, after


def total_loss(losses: Mapping[str, torch.Tensor], settings: Optimisation) -> torch.Tensor:
    """The scalar to minimise: all heads added, auxiliary ones and what is read by their factor."""
    factors = {name: settings.auxiliary_weight if name.startswith(AUXILIARY) else 1.0 for name in losses}
    factors |= {SCENE: settings.scene_weight, FOCUS: settings.focus_weight}
    factors[DISTILLATION] = settings.distillation_weight
    return torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
