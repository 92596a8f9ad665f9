"""Records what exit thresholds are solved from, on episodes kept apart from training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.criteria import criterion_named
from deer_policies.deer.exits import ExitRule
from deer_policies.deer.recording import Outcomes, followed, outcomes
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.training.episodes import Episode


@torch.no_grad()
def replay(
    model: DeerModel, tokenizer: Tokenizer, episode: Episode, rule: ExitRule, criterion: str = "action"
) -> tuple[Outcomes, int]:
    """What every exit would have done at each step of an episode on whose history a rule took the exits.

    The history runs from the start of the episode, where the official code takes windows of 12 steps from a zero state
    and steps 5 to 10 of them; and images are not augmented here.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        episode: its first wording is the instruction.
        rule: takes the exits.
        criterion: name of what is recorded.

    Returns:
        The outcomes, for a batch of one, and the number of tokens of the instruction.
    """
    ids, mask = tokenizer.encode_batch([episode.instructions[0]])
    features = model.features(torch.from_numpy(episode.images)[None], ids, mask)
    proprioception = torch.from_numpy(episode.proprioception)[None]
    found = outcomes(model.head, features, proprioception, followed(rule), criterion_named(criterion))
    return found, ids.shape[1]


def calibrate(
    model: DeerModel,
    tokenizer: Tokenizer,
    episodes: Iterable[Episode],
    rule: ExitRule,
    criterion: str,
    source: dict[str, Any],
) -> Calibration:
    """Records all that thresholds are solved from; for the other arguments see `replay`.

    Args:
        episodes: not used for training; the policy acted in them under `rule`, or something near it.
        source: what the episodes are, kept with the values.

    Raises:
        ConfigError: if there is no episode, or no such criterion.
    """
    values, errors, tokens, numbers = [], [], [], []
    for number, episode in enumerate(episodes):
        found, length = replay(model, tokenizer, episode, rule, criterion)
        values.append(found.values[:, 0])
        errors.append(found.pose_errors[:, 0].masked_fill(found.gripper_errors[:, 0], float("inf")))
        tokens.append(torch.full((values[-1].shape[1],), length))
        numbers.append(torch.full_like(tokens[-1], number))
    if not values:
        raise ConfigError("there is no episode to calibrate on; record at least one")
    return Calibration(
        torch.cat(values, dim=1),
        criterion,
        dict(source),
        torch.cat(tokens),
        torch.cat(errors, dim=1),
        torch.cat(numbers),
    )
