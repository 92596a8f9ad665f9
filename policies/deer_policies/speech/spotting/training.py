"""Trains the network of the stop word: examples are made as it goes, and it can be interrupted and continued."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from deer_policies.speech.spotting.config import SpotterConfig
from deer_policies.speech.spotting.corpus import Clip
from deer_policies.speech.spotting.examples import NOTHING, SOMEWHERE, ExampleMaker
from deer_policies.speech.spotting.network import SpotterNetwork

SUREST = 4
"""Frames of a word that are to say so."""
KEPT_EVERY = 250
"""Steps from one checkpoint to the next."""


@dataclass(frozen=True)
class SpotterRecipe:
    """How it is trained.

    Attributes:
        steps, batch: updates, and examples in each.
        learning_rate: the greatest, after a short rise; it falls to nothing like a cosine.
        stop_weight: of a frame in which the word is to be heard, against others.
        seed: of weights and examples.
    """

    steps: int = 6000
    batch: int = 32
    learning_rate: float = 3e-3
    stop_weight: float = 8.0
    seed: int = 0


def loss(logits: torch.Tensor, labels: torch.Tensor, stop_weight: float) -> torch.Tensor:
    """Binary cross-entropy of logits and labels (batch, frames): of each frame that is NOTHING, and of the surest few
    of those where the word is SOMEWHERE."""
    nothing = F.softplus(logits)[labels == NOTHING].sum()
    somewhere = (labels == SOMEWHERE).any(1)
    surest = logits.masked_fill(labels != SOMEWHERE, -30.0)[somewhere].topk(SUREST, 1).values
    return (nothing + stop_weight * F.softplus(-surest).sum()) / (labels == NOTHING).sum()


def train(
    config: SpotterConfig,
    recipe: SpotterRecipe,
    clips: Sequence[Clip],
    work: Path,
    told: Callable[[int, float], None],
) -> SpotterNetwork:
    """The trained network.

    Args:
        config: sizes.
        recipe: how.
        clips: speech to make examples of.
        work: folder for the state of training; it goes on from there.
        told: called with the step and the mean loss lately.
    """
    torch.manual_seed(recipe.seed)
    network = SpotterNetwork(config)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.1)
    kept = work / "spotter-training.pt"
    step, losses = 0, []
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        if state["recipe"] == repr(recipe):
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            rate.load_state_dict(state["rate"])
            step = state["step"]
    if step >= recipe.steps:
        return network.eval()
    network.train()
    with _batches(clips, recipe, step) as batches:
        for features, labels in batches:
            value = loss(network(torch.from_numpy(features)), torch.from_numpy(labels).long(), recipe.stop_weight)
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            rate.step()
            step += 1
            losses.append(value.item())
            if step % KEPT_EVERY == 0 or step == recipe.steps:
                _keep(kept, {"network": network, "optimiser": optimiser, "rate": rate}, step, recipe)
                told(step, float(np.mean(losses[-KEPT_EVERY:])))
            if step == recipe.steps:
                break
    return network.eval()


def _keep(path: Path, parts: dict[str, Any], step: int, recipe: SpotterRecipe) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**states, "step": step, "recipe": repr(recipe)}, fresh)
    fresh.replace(path)


@contextmanager
def _batches(clips: Sequence[Clip], recipe: SpotterRecipe, step: int) -> Iterator[Iterator[Any]]:
    """Batches that another process makes, so that both cores have work; the same for a seed and a first step."""
    context = multiprocessing.get_context("fork")
    made: Any = context.Queue(maxsize=8)
    process = context.Process(target=_fill, args=(made, clips, recipe, step), daemon=True)
    process.start()
    try:
        yield _taken(made, process)
    finally:
        process.terminate()
        process.join()


def _taken(made: Any, process: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while True:
        try:
            yield made.get(timeout=1.0)
        except queue.Empty:
            if not process.is_alive():
                raise RuntimeError("the process that makes examples has ended") from None


def _fill(batches: Any, clips: Sequence[Clip], recipe: SpotterRecipe, step: int) -> None:
    maker = ExampleMaker(clips, recipe.seed + 1000 * step)
    while True:
        examples = [maker.make() for _ in range(recipe.batch)]
        batches.put((np.stack([each.features for each in examples]), np.stack([each.labels for each in examples])))
