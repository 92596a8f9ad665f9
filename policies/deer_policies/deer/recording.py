"""What every exit would have done at each step of recorded clips: criterion values, and distance from all layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from deer_policies.deer.action_head import ActionHead, HeadState
from deer_policies.deer.criteria import ActionConsistency, Candidate, ExitCriterion, HeadOutput, action_distance
from deer_policies.deer.exits import ExitRule

Choice = Callable[[Sequence[Candidate], int], torch.Tensor]
"""Candidates of the layer before the first exit and of every exit, and the step -> the exit (batch,) that is taken."""


@dataclass(frozen=True)
class Outcomes:
    """What each exit leads to at each step; every exit of a step starts from the state that the exits taken left.

    Attributes:
        values: (exits, batch, window) float32, the criterion's.
        pose_errors: (exits, batch, window) float32, root mean square distance of the pose from the last exit's.
        gripper_errors: (exits, batch, window) bool, where the gripper's command is not the last exit's.
        taken: (batch, window) int64, the exits taken.
        state: after the window.
    """

    values: torch.Tensor
    pose_errors: torch.Tensor
    gripper_errors: torch.Tensor
    taken: torch.Tensor
    state: HeadState


def followed(rule: ExitRule) -> Choice:
    """Takes the exits that a rule takes, for a batch of one; steps count from the start of the window."""

    def choose(candidates: Sequence[Candidate], step: int) -> torch.Tensor:
        exits = range(len(candidates) - 1)
        return torch.tensor([next(k for k in exits if rule.decide(candidates[: k + 2], step).stop)])

    return choose


@torch.no_grad()
def outcomes(
    head: ActionHead,
    features: torch.Tensor,
    proprioception: torch.Tensor | None,
    choose: Choice,
    criterion: ExitCriterion | None = None,
    state: HeadState | None = None,
) -> Outcomes:
    """Runs the head at every exit of every step, on the history that the exits taken make.

    Args:
        head: the shared head, in evaluation mode.
        features: (exits + 1, batch, window, dim) as `DeerModel.features` gives them.
        proprioception: (batch, window, 15) or None.
        choose: the exit that is taken at each step; its state is what the next step starts from.
        criterion: compares adjacent exits; action consistency by default.
        state: before the window; None for the start of episodes.
    """
    entries, batch, window, dim = features.shape
    criterion = criterion or ActionConsistency()
    state = state or head.initial_state(batch)
    rows = torch.arange(batch, device=features.device)
    values, pose_errors, gripper_errors, taken = [], [], [], []
    for step in range(window):
        robot = None if proprioception is None else proprioception[:, step : step + 1].repeat(entries, 1, 1)
        repeated = HeadState(state.hidden.repeat(1, entries, 1), state.cell.repeat(1, entries, 1))
        pose, logit, after = head(features[:, :, step].reshape(entries * batch, 1, dim), robot, repeated)
        poses, opens = pose.view(entries, batch, 6).float(), logit.view(entries, batch) > 0.0
        states = [
            HeadState(*pair) for pair in zip(after.hidden.split(batch, 1), after.cell.split(batch, 1), strict=True)
        ]
        outputs = zip(poses, logit.view(entries, batch), states, strict=True)
        candidates = [Candidate(features[k, :, step], _known(output)) for k, output in enumerate(outputs)]
        values.append(torch.stack([criterion.distance(*pair, step).float().cpu() for pair in pairwise(candidates)]))
        pose_errors.append(action_distance(poses[1:], poses[-1]).cpu())
        gripper_errors.append((opens[1:] != opens[-1]).cpu())
        taken.append(choose(candidates, step))
        kept = (taken[-1].to(features.device) + 1) * batch + rows
        state = HeadState(after.hidden[:, kept], after.cell[:, kept])
    return Outcomes(
        torch.stack(values, dim=-1),
        torch.stack(pose_errors, dim=-1),
        torch.stack(gripper_errors, dim=-1),
        torch.stack(taken, dim=-1),
        state,
    )


def _known(output: HeadOutput) -> Callable[[torch.Tensor], HeadOutput]:
    return lambda _feature: output
