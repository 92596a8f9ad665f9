"""The losses of one action head: imitation of labels (DeeR, section 'training'), and of another head."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from deer_policies.interfaces import POSE_SIZE


def action_loss(
    pose: torch.Tensor,
    gripper_logit: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    gripper_weight: float,
) -> torch.Tensor:
    """Mean loss over the actions with weight, as a scalar: Huber on the pose, cross-entropy on the gripper.

    Args:
        pose: (batch, window, horizon * 6), predicted xyz and euler part of the relative actions in [-1, 1].
        gripper_logit: (batch, window, horizon), positive for open.
        target: (batch, window, horizon, 7), labels; the gripper column is +1 (open) or -1 (close).
        weight: (batch, window, horizon), 1 for a label and 0 for padding.
        gripper_weight: factor of the gripper term (the paper's lambda, 0.01).
    """
    wanted = target[..., :POSE_SIZE]
    pose_loss = F.huber_loss(pose.float().view_as(wanted), wanted, reduction="none").mean(-1)
    is_open = (target[..., POSE_SIZE] > 0).float()
    gripper_loss = F.binary_cross_entropy_with_logits(gripper_logit.float(), is_open, reduction="none")
    total = (pose_loss + gripper_weight * gripper_loss) * weight
    return total.sum() / weight.sum().clamp(min=1.0)


def distillation_loss(
    pose: torch.Tensor,
    gripper_logit: torch.Tensor,
    taught_pose: torch.Tensor,
    taught_logit: torch.Tensor,
    weight: torch.Tensor,
    gripper_weight: float,
) -> torch.Tensor:
    """The same with what another head says in place of labels (Phuong and Lampert 2019, multi-exit distillation).

    Args:
        pose, gripper_logit, weight, gripper_weight: as in `action_loss`.
        taught_pose, taught_logit: of the head that is imitated; no gradient goes back into it.
    """
    actions = (*weight.shape, POSE_SIZE)
    pose_loss = F.huber_loss(pose.float().view(actions), taught_pose.detach().float().view(actions), reduction="none")
    wanted = taught_logit.detach().float().sigmoid()
    gripper_loss = F.binary_cross_entropy_with_logits(gripper_logit.float(), wanted, reduction="none")
    total = (pose_loss.mean(-1) + gripper_weight * gripper_loss) * weight
    return total.sum() / weight.sum().clamp(min=1.0)
