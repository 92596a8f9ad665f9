"""Replays of what is computed offline: solved thresholds, criterion values, training forward pass and losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.thresholds import action_values, exit_shares, solve_thresholds
from deer_policies.parity.comparison import Comparison
from deer_policies.parity.recording import Recording
from deer_policies.training.exit_sampling import gather_exits
from deer_policies.training.losses import action_loss

GRIPPER_WEIGHT = 0.01
"""Factor of the gripper's loss in the official training (the paper's lambda)."""


def solved_thresholds(recording: Recording, found: Comparison) -> None:
    """Thresholds from criterion values, for several wanted shares and depths: equal to the last bit."""
    values = recording.tensor("solver_values")
    for case in recording.below("solver"):
        key = f"solver/{case}"
        dist, ratio, max_layer, llm = (
            recording.setting(f"{key}/{name}") for name in ("dist", "ratio", "max_layer", "llm")
        )
        layers = [layer for layer in recording.exit_layers if layer <= max_layer - 1]
        shares = exit_shares(ratio, len(layers), dist, blind=int("mpt_9b" in llm))
        recorded = [recording.setting(f"{key}/thresholds/{layer}") for layer in layers]
        found.same(f"{key}/thresholds", solve_thresholds(values, shares), recorded)


def criterion_values(recording: Recording, found: Comparison) -> None:
    """Distances between exits in the second half of each window, on histories of randomly mixed exits."""
    features = _features(recording)
    if recording.exit_layers[0] > 1:
        # While values are computed, the official code compares the first exit with layer 0 whatever the interval.
        features = torch.cat([_pooled_layer(recording, 0)[None], features[1:]])
    drawn = recording.array("generate/rand_layer_indices")
    exits = torch.tensor([[recording.exit_at(layer) for layer in window] for window in drawn.tolist()])
    values, _ = action_values(recording.model.head, features, None, exits)
    window = values.shape[-1]
    half = values[:, :, window // 2 - 1 : window - 1].flatten(1)
    found.near("generate/values", half, recording.array("generate/values"))


def training_forward(recording: Recording, found: Comparison) -> None:
    """Actions of every head on a batch of windows, with the recorded draws of the two exit samplings."""
    for key, (pose, logit) in _head_outputs(recording).items():
        for part, ours in enumerate((pose, logit.sigmoid(), logit)):
            name = f"train_eval_mode/{key}/{part}"
            found.near(name, ours, recording.array(name))


def training_losses(recording: Recording, found: Comparison) -> None:
    """The loss of each head, of the whole batch, and of the official training step."""
    actions = recording.tensor("train_batch/actions")
    # The official label is open for +1 and above only: (g + 1) // 2.
    is_open = (actions[..., 6:] + 1.0) // 2.0 > 0.0
    target = torch.cat([actions[..., :6], torch.where(is_open, 1.0, -1.0)], dim=-1)[:, :, None]
    weight = torch.ones(target.shape[:3])
    outputs = _head_outputs(recording).values()

    def losses(gripper_weight: float) -> torch.Tensor:
        return torch.stack([action_loss(pose, logit, target, weight, gripper_weight) for pose, logit in outputs])

    found.near("train_losses/huber", losses(0.0), recording.array("train_losses/huber"))
    # Compared without its small weight, under which an error of a thousandth would pass.
    found.near("train_losses/bce", losses(1.0) - losses(0.0), recording.array("train_losses/bce"))
    found.near("train_losses/total", losses(GRIPPER_WEIGHT).sum(), recording.array("train_losses/total"))
    if recording.has("official_step_loss"):
        found.near("official_step_loss", losses(GRIPPER_WEIGHT).sum(), recording.array("official_step_loss"))


def _features(recording: Recording) -> torch.Tensor:
    """Pooled features (exits + 1, batch, window, dim) of the recorded training batch."""
    images = torch.stack([recording.tensor("train_batch/rgb"), recording.tensor("train_batch/grip")], dim=2)
    mask = recording.tensor("train_batch/mask").bool()
    return recording.model.features(images, recording.tensor("train_batch/ids"), mask)


def _pooled_layer(recording: Recording, layer: int, final_norm: torch.Tensor | None = None) -> torch.Tensor:
    """Pooled feature (batch, window, dim) of any layer on the training batch, through the final norm if given."""
    images = torch.stack([recording.tensor("train_batch/rgb"), recording.tensor("train_batch/grip")], dim=2)
    batch, window = images.shape[:2]
    model, mask = recording.model, recording.tensor("train_batch/mask").bool()
    text = model.text(recording.tensor("train_batch/ids"), mask).repeated(window)
    x, media = text.embedding, model.media(images.flatten(0, 1))
    for part in model.layers[: layer + 1]:
        x = part(x, text.bias, media)
    if final_norm is not None:
        x = F.layer_norm(x, x.shape[-1:], final_norm)
    return model.pooled(x, text.mask).unflatten(0, (batch, window))


def _head_outputs(recording: Recording) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pose and gripper logit of every head over the training batch, in the order of the recorded losses."""
    features = _features(recording)
    model, exits = recording.model, features[1:]
    window = exits.shape[2]
    last = exits[-1]
    if recording.final_norm is not None:
        # MPT-7B's code normalises the last hidden state where nothing exits, so its auxiliary head is trained on that.
        last = _pooled_layer(recording, recording.exit_layers[-1], recording.final_norm)
    uniform = recording.tensor("train_eval_mode/uniform_exit_index")
    segments = recording.tensor("train_eval_mode/segment_exit_index")
    in_first = torch.arange(window) < recording.setting("train_eval_mode/prev_len")
    drawn = torch.where(in_first, segments[:, :1], segments[:, 1:])
    auxiliary = list(model.auxiliary_heads)
    heads: dict[str, tuple[nn.Module, torch.Tensor]] = {
        **{f"aux/{k}": (head, exits[k]) for k, head in enumerate(auxiliary[:-1])},
        "last": (auxiliary[-1], last),
        "extra_uniform": (model.head, gather_exits(exits, uniform)),
        "extra_segment": (model.head, gather_exits(exits, drawn)),
    }
    outputs = {}
    for key, (head, feature) in heads.items():
        pose, logit, _ = head(feature)
        outputs[key] = (pose, logit)
    return outputs
