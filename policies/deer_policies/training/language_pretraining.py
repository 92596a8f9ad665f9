"""Before it sees an image, a language model that is trained from scratch learns to tell tasks apart by their wordings.

The official policy starts from a pretrained language model. The small one has none; without this phase it hedges for
thousands of updates between tasks that look alike and differ in a word.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.training.arithmetic import HALF, mixed_precision
from deer_policies.training.optimiser import one_cycle
from deer_policies.training.recipe import PretrainingPhase

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 100
PARTS = 4
"""The wordings of an update are computed in so many parts of like length: padding would cost more than the words."""
MOST_AT_ONCE = 128


class TaskClassifier(nn.Module):
    """The language model without images, and a linear classifier of tasks at every exit, which is not kept."""

    def __init__(self, model: DeerModel, tokenizer: Tokenizer, tasks: Sequence[str]) -> None:
        """Args:
        model: its embedding and layers are trained in place.
        tokenizer: turns wordings into ids.
        tasks: names of the classes.
        """
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer
        self._tasks = {task: index for index, task in enumerate(tasks)}
        config = model.config
        exits = len(model.exit_layers) + 1
        self._classifiers = nn.ModuleList(nn.Linear(config.language.dim, len(tasks)) for _ in range(exits))
        self._media = torch.zeros(1, config.views * config.resampler.tokens, config.vision.dim)

    def trained(self) -> list[nn.Parameter]:
        """Everything that a text passes through."""
        parts = (self.model.embedding, self.model.layers, self._classifiers)
        return [parameter for part in parts for parameter in part.parameters()]

    def logits(self, texts: Sequence[str]) -> torch.Tensor:
        """(exits + 1, batch, tasks); entry 0 is the layer before the first exit."""
        ids, mask = self._tokenizer.encode_batch(texts)
        features = self.model.exit_features(self.model.text(ids, mask), self._media.expand(len(texts), -1, -1))
        pairs = zip(self._classifiers, features, strict=True)
        return torch.stack([classifier(feature) for classifier, feature in pairs])

    def loss(self, texts: Sequence[str], tasks: Sequence[str]) -> torch.Tensor:
        """Mean cross-entropy over exits and wordings."""
        target = torch.tensor([self._tasks[task] for task in tasks])
        logits = self.logits(texts)
        return F.cross_entropy(logits.flatten(0, 1), target.repeat(len(logits)))

    @torch.no_grad()
    def accuracy(self, wordings: Mapping[str, Sequence[str]]) -> tuple[float, ...]:
        """Share of all wordings whose task each exit names, shallowest first."""
        pairs = [(task, text) for task, texts in wordings.items() for text in texts]
        pairs.sort(key=lambda pair: len(pair[1]))
        named = torch.zeros(len(self.model.exit_layers))
        for start in range(0, len(pairs), MOST_AT_ONCE):
            tasks, texts = zip(*pairs[start : start + MOST_AT_ONCE], strict=True)
            target = torch.tensor([self._tasks[task] for task in tasks])
            named += (self.logits(texts)[1:].argmax(-1) == target).sum(-1)
        return tuple((named / len(pairs)).tolist())


def pretrain_language(
    model: DeerModel,
    tokenizer: Tokenizer,
    wordings: Mapping[str, tuple[str, ...]],
    phase: PretrainingPhase,
    seed: int,
) -> TaskClassifier:
    """Trains embedding and language layers in place; vision, resampler and heads stay as they are.

    Args:
        model: with its initial weights.
        tokenizer: of the model.
        wordings: of each task, to train on; tasks are drawn evenly.
        phase: how long and how fast.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    tasks = list(wordings)
    classifier = TaskClassifier(model, tokenizer, tasks)
    optimiser = torch.optim.AdamW(classifier.trained(), phase.learning_rate)
    schedule = one_cycle(optimiser, phase)
    losses: list[float] = []
    for step in range(1, phase.steps + 1):
        drawn = [tasks[index] for index in rng.integers(len(tasks), size=phase.batch)]
        texts = [wordings[task][int(rng.integers(len(wordings[task])))] for task in drawn]
        optimiser.zero_grad(set_to_none=True)
        by_length = sorted(zip(texts, drawn, strict=True), key=lambda pair: len(pair[0]))
        parts = np.array_split(np.arange(phase.batch), min(PARTS, phase.batch))
        losses.append(sum(_backward(classifier, [by_length[index] for index in part], phase.batch) for part in parts))
        nn.utils.clip_grad_norm_(classifier.trained(), 1.0)
        optimiser.step()
        schedule.step()
        if step % LOG_EVERY_STEPS == 0 or step == phase.steps:
            logger.info("language: step %d/%d, loss %.4f", step, phase.steps, np.mean(losses[-LOG_EVERY_STEPS:]))
    return classifier


def _backward(classifier: TaskClassifier, pairs: Sequence[tuple[str, str]], batch: int) -> float:
    """Adds the gradient of (wording, task) pairs that are part of a batch; returns what they add to its mean loss."""
    texts, tasks = zip(*pairs, strict=True)
    with mixed_precision(torch.device("cpu"), HALF):
        loss = classifier.loss(texts, tasks) * (len(pairs) / batch)
    loss.backward()
    return float(loss.detach())
