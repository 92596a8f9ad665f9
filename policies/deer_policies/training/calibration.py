"""Records what exit thresholds are solved from, on episodes kept apart from training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.criteria import CRITERIA, PREDICTED, ActionConsistency, ExitCriterion, checked_criterion
from deer_policies.deer.exits import ExitRule
from deer_policies.deer.predicted_distance import PredictedDistance, Signals
from deer_policies.deer.recording import Outcomes, followed, outcomes
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.training.episodes import Episode


@dataclass(frozen=True)
class Clip:
    """An episode after all layers: what the head is run on.

    Attributes:
        features: (exits + 1, 1, steps, dim) as `DeerModel.features` gives them.
        proprioception: (1, steps, 15).
        tokens: length of the instruction.
    """

    features: torch.Tensor
    proprioception: torch.Tensor
    tokens: int


@torch.no_grad()
def encode(model: DeerModel, tokenizer: Tokenizer, episode: Episode) -> Clip:
    """Runs vision and layers on a whole episode, unaugmented, with its first wording; the model in evaluation mode."""
    ids, mask = tokenizer.encode_batch([episode.instructions[0]])
    features = model.features(torch.from_numpy(episode.images)[None], ids, mask)
    return Clip(features, torch.from_numpy(episode.proprioception)[None], ids.shape[1])


def replay(model: DeerModel, clip: Clip, rule: ExitRule, criterion: ExitCriterion | None = None) -> Outcomes:
    """What every exit would have done at each step of a clip on whose history a rule took the exits.

    The history runs from the start of the episode, where the official code takes windows of 12 steps from a zero state
    and steps 5 to 10 of them. `criterion` gives the values; action consistency by default.
    """
    costs = CostModel(model.config)
    choose = followed(rule, [costs.llm_gmac(index) for index in range(len(model.exit_layers))])
    return outcomes(model.head, clip.features, clip.proprioception, choose, criterion or ActionConsistency())


def calibrate(
    model: DeerModel, clips: Iterable[Clip], rule: ExitRule, criterion: str, source: dict[str, Any]
) -> Calibration:
    """Records all that thresholds are solved from.

    Args:
        model: in evaluation mode.
        clips: of episodes that were not used for training, in which the policy acted under `rule` or something near it.
        rule: takes the exits; see `replay`.
        criterion: name of what is recorded; 'predicted' is fitted on these very steps.
        source: what the episodes are, kept with the values.

    Raises:
        ConfigError: if there is no clip, or no such criterion.
    """
    fits = checked_criterion(criterion) == PREDICTED
    recorded = Signals() if fits else CRITERIA[criterion]()
    values, errors, tokens, numbers = [], [], [], []
    for number, clip in enumerate(clips):
        found = replay(model, clip, rule, recorded)
        values.append(found.values[:, 0])
        errors.append(found.pose_errors[:, 0].masked_fill(found.gripper_errors[:, 0], float("inf")))
        tokens.append(torch.full((values[-1].shape[-1],), clip.tokens))
        numbers.append(torch.full_like(tokens[-1], number))
    if not values:
        raise ConfigError("there is no episode to calibrate on; record at least one")
    joined, distances, predicted = torch.cat(values, dim=-1), torch.cat(errors, dim=1), None
    if fits:
        signals = joined.movedim(1, -1)
        predicted = PredictedDistance.fitted(signals, distances)
        joined = predicted.of(signals)
    return Calibration(
        joined, criterion, dict(source), torch.cat(tokens), distances, torch.cat(numbers), predicted=predicted
    )
