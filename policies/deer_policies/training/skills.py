"""Trains the recogniser of skills: wordings of the tasks against texts that ask for none of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.skills import PAD, UNKNOWN, SkillRecogniser, Skills, vocabulary_of
from deer_policies.errors import ConfigError
from deer_policies.training.recipe import SkillsPhase

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 200
OUTSIDE_SHARE = 0.4
"""Of an update's texts."""
WORD_DROPOUT = 0.1
"""Chance that a word is read by its pieces alone throughout an update, so that unseen words are no surprise."""
ACCEPTED = 0.12
"""Share of the texts outside, of things and phrases kept apart, that the threshold lets pass."""
LIMITS = (0.02, 0.98)
"""Of the threshold."""
STRANGE = 0.03
"""The same for words that are not even known by their pieces."""
SCORED_AT_ONCE = 256


@dataclass(frozen=True)
class OutsideTexts:
    """Texts that ask for none of the tasks: some to train on, others to choose the threshold with."""

    training: Sequence[str]
    tuning: Sequence[str]

    def __post_init__(self) -> None:
        if not self.training or not self.tuning:
            raise ConfigError("a recogniser of skills needs texts outside of them, to train on and to tune with")


def train_skills(
    wordings: Mapping[str, Sequence[str]],
    outside: OutsideTexts,
    learned: Sequence[str],
    phase: SkillsPhase,
    seed: int,
    examples: Mapping[str, str] | None = None,
) -> SkillRecogniser:
    """Trains a recogniser and chooses its threshold.

    Args:
        wordings: of each task.
        outside: see `OutsideTexts`.
        learned: tasks that the policy is trained on.
        phase: how long and how fast.
        seed: of initial weights and draws.
        examples: a sentence for each task, to show to a person; by default its first wording.
    """
    tasks = tuple(wordings)
    examples = examples or {task: texts[0] for task, texts in wordings.items()}
    torch.manual_seed(seed)
    vocabulary = vocabulary_of([*(text for texts in wordings.values() for text in texts), *outside.training])
    recogniser = SkillRecogniser(Skills(tasks, tuple(learned), examples), vocabulary)
    _optimise(recogniser, [*wordings.values(), outside.training], phase, np.random.default_rng(seed))
    return recogniser.with_threshold(_threshold(recogniser, outside.tuning))


def _optimise(
    recogniser: SkillRecogniser, classes: Sequence[Sequence[str]], phase: SkillsPhase, rng: np.random.Generator
) -> None:
    """Updates on texts whose class is drawn evenly among the tasks, and `OUTSIDE_SHARE` of the last class."""
    recogniser.train()
    optimiser = torch.optim.AdamW(recogniser.parameters(), phase.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, phase.learning_rate, phase.steps, pct_start=0.1)
    tasks = len(classes) - 1
    losses: list[float] = []
    for step in range(1, phase.steps + 1):
        drawn = np.where(rng.random(phase.batch) < OUTSIDE_SHARE, tasks, rng.integers(tasks, size=phase.batch))
        texts = [classes[kind][int(rng.integers(len(classes[kind])))] for kind in drawn]
        encoded = recogniser.encode(texts)
        chance = torch.from_numpy(rng.random(len(encoded.words)))
        words = torch.where((chance < WORD_DROPOUT) & (encoded.words > UNKNOWN), UNKNOWN, encoded.words)
        pieces = torch.where((chance < STRANGE)[:, None], PAD, encoded.pieces)
        encoded = replace(encoded, words=words, pieces=pieces)
        loss = F.cross_entropy(recogniser(encoded), torch.from_numpy(drawn), label_smoothing=0.02)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(recogniser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % LOG_EVERY_STEPS == 0 or step == phase.steps:
            logger.info("skills: step %d/%d, loss %.4f", step, phase.steps, np.mean(losses[-LOG_EVERY_STEPS:]))


def _scores(recogniser: SkillRecogniser, texts: Sequence[str]) -> np.ndarray:
    """Probability that a text asks for any of the tasks, learned or not."""
    by_length = sorted(texts, key=len)
    parts = [by_length[start : start + SCORED_AT_ONCE] for start in range(0, len(texts), SCORED_AT_ONCE)]
    return np.concatenate([1.0 - recogniser.probabilities(part)[:, -1].numpy() for part in parts])


def _threshold(recogniser: SkillRecogniser, outside: Sequence[str]) -> float:
    """The least score that lets `ACCEPTED` of the texts outside pass.

    Wordings of the tasks have no say in it: those that could be kept apart come from templates that were trained on,
    and would promise far fewer false refusals than new sentences meet.
    """
    limit = float(np.clip(np.quantile(_scores(recogniser, outside), 1.0 - ACCEPTED), *LIMITS))
    logger.info("skills: threshold %.3f", limit)
    return limit
