"""What every exit would have done at each step of recorded clips: criterion values, and distance from all layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from deer_policies.deer.action_head import ActionHead, HeadState
from deer_policies.deer.criteria import ActionConsistency, Candidate, ExitCriterion, HeadOutput, action_distance
from deer_policies.deer.exits import ExitRule, ThresholdRule

Choice = Callable[[Sequence[Candidate], int], torch.Tensor]
"""Candidates of the layer before the first exit and of every exit, and the step -> the exit (batch,) that is taken."""


@dataclass(frozen=True)
class Outcomes:
    """What each exit leads to at each step; every exit of a step starts from the state that the exits taken left.

    Attributes:
        values: (exits, batch, window) float32, the criterion's.
        pose_errors: (exits, batch, window) float32, root mean square distance of the poses from the last exit's.
        gripper_errors: (exits, batch, window) bool, where one of the gripper's commands is not the last exit's.
        taken: (batch, window) int64, the exits taken.
        state: after the window.
    """

    values: torch.Tensor
    pose_errors: torch.Tensor
    gripper_errors: torch.Tensor
    taken: torch.Tensor
    state: HeadState


def followed(rule: ExitRule, llm_gmac: Sequence[float] = ()) -> Choice:
    """Takes the exits that a rule takes in one episode, which is a batch of one and starts with the window.

    Args:
        rule: decides.
        llm_gmac: cost of each exit at the reference length, in 1e9 MAC; a rule with a pace needs it.
    """
    surplus = 0.0

    def choose(candidates: Sequence[Candidate], step: int) -> torch.Tensor:
        nonlocal surplus
        at_step = rule.at_pace(surplus) if isinstance(rule, ThresholdRule) else rule
        taken = next(k for k in range(len(candidates) - 1) if at_step.decide(candidates[: k + 2], step).stop)
        if isinstance(rule, ThresholdRule) and rule.pace is not None:
            surplus = rule.surplus_after(surplus, llm_gmac[taken])
        return torch.tensor([taken])

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
        criterion: compares adjacent exits; action consistency by default. One that gives several numbers, (batch,
            numbers), adds them to the values as (exits, batch, numbers, window).
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
        poses, logits = pose.view(entries, batch, -1).float(), logit.view(entries, batch, -1)
        opens = logits > 0.0
        states = [
            HeadState(*pair) for pair in zip(after.hidden.split(batch, 1), after.cell.split(batch, 1), strict=True)
        ]
        outputs = zip(poses, logits, states, strict=True)
        candidates = [Candidate(features[k, :, step], _known(output)) for k, output in enumerate(outputs)]
        values.append(torch.stack([criterion.distance(*pair, step).float().cpu() for pair in pairwise(candidates)]))
        pose_errors.append(action_distance(poses[1:], poses[-1]).cpu())
        gripper_errors.append((opens[1:] != opens[-1]).any(-1).cpu())
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
