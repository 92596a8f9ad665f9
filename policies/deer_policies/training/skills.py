"""Trains the recogniser of skills: wordings of the tasks against texts that ask for none of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.skills import UNKNOWN, SkillRecogniser, Skills, vocabulary_of
from deer_policies.errors import ConfigError
from deer_policies.training.recipe import SkillsPhase

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 200
OUTSIDE_SHARE = 0.4
"""Of an update's texts."""
WORD_DROPOUT = 0.1
"""Chance that a word is read by its pieces alone throughout an update, so that unseen words are no surprise."""
TUNING_TEXTS = 3000
REFUSALS = 0.02
"""Share of the tasks' wordings kept apart that the threshold may refuse."""
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
        wordings: of each task; every tenth is kept apart for the threshold.
        outside: see `OutsideTexts`.
        learned: tasks that the policy is trained on.
        phase: how long and how fast.
        seed: of initial weights and draws.
        examples: a sentence for each task, to show to a person; by default its first wording.
    """
    tasks = tuple(wordings)
    examples = examples or {task: texts[0] for task, texts in wordings.items()}
    trained = [[text for number, text in enumerate(texts) if number % 10] or list(texts) for texts in wordings.values()]
    torch.manual_seed(seed)
    vocabulary = vocabulary_of([*(text for texts in trained for text in texts), *outside.training])
    recogniser = SkillRecogniser(Skills(tasks, tuple(learned), examples), vocabulary)
    _optimise(recogniser, [*trained, list(outside.training)], phase, np.random.default_rng(seed))
    apart = [text for texts in wordings.values() for text in texts[::10]]
    rng = np.random.default_rng(seed)
    drawn = [apart[index] for index in rng.permutation(len(apart))[:TUNING_TEXTS]]
    return recogniser.with_threshold(_threshold(recogniser, drawn, outside.tuning))


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
        hidden = torch.from_numpy(rng.random(len(encoded.words)) < WORD_DROPOUT)
        encoded = replace(encoded, words=torch.where(hidden & (encoded.words > UNKNOWN), UNKNOWN, encoded.words))
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


def _threshold(recogniser: SkillRecogniser, inside: Sequence[str], outside: Sequence[str]) -> float:
    """The score with the fewest errors of both kinds, each as a share of its texts, that refuses few inside."""
    within, beyond = _scores(recogniser, inside), _scores(recogniser, outside)
    candidates = np.linspace(0.02, 0.98, 97)
    refused = np.array([(within < limit).mean() for limit in candidates])
    accepted = np.array([(beyond >= limit).mean() for limit in candidates])
    best = int(np.argmin(refused + accepted + 10.0 * (refused > REFUSALS)))
    logger.info(
        "skills: threshold %.2f refuses %.1f %% of wordings kept apart and accepts %.1f %% of texts outside",
        candidates[best], 100 * refused[best], 100 * accepted[best],
    )  # fmt: skip
    return float(candidates[best])
