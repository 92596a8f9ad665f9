"""Trains the network of the stop word: examples are made as it goes, and it can be interrupted and continued."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from deer_policies.errors import ConfigError
from deer_policies.speech.spotting.config import SpotterConfig
from deer_policies.speech.spotting.corpus import Clip
from deer_policies.speech.spotting.examples import NOTHING, SOMEWHERE, ExampleMaker
from deer_policies.speech.spotting.network import SpotterNetwork

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
SUREST = 2
"""Steps of a word that are to say so."""
ALONE_SHARE = 0.3
"""Weight of what each part of the network says alone."""
PHASE, TIMES = 240, 3
"""Updates from one checkpoint to the next, and how often they see the examples that were made for them."""
WORKERS = 2
"""Processes that make examples; the network waits meanwhile, as it is slow beside them on two cores."""


@dataclass(frozen=True)
class SpotterRecipe:
    """How it is trained.

    Attributes:
        steps, batch: updates, a multiple of `PHASE`, and examples in each.
        learning_rate: the greatest, after a short rise; it falls to nothing like a cosine.
        embedding_rate: the same, for the speech embedding, which is trained already.
        stop_weight: of a step in which the word is to be heard, against others.
        seed: of weights and examples.
    """

    steps: int = 25 * PHASE
    batch: int = 64
    learning_rate: float = 3e-3
    embedding_rate: float = 5e-4
    stop_weight: float = 4.0
    seed: int = 0


def loss(logits: torch.Tensor, labels: torch.Tensor, stop_weight: float) -> torch.Tensor:
    """Binary cross-entropy of logits and labels (batch, steps): of each step that is NOTHING, and of the surest few
    of those where the word is SOMEWHERE."""
    nothing = F.softplus(logits)[labels == NOTHING].sum()
    somewhere = (labels == SOMEWHERE).any(1)
    surest = logits.masked_fill(labels != SOMEWHERE, -30.0)[somewhere].topk(SUREST, 1).values
    return (nothing + stop_weight * F.softplus(-surest).sum()) / (labels == NOTHING).sum()


def train(
    config: SpotterConfig,
    recipe: SpotterRecipe,
    clips: Sequence[Clip],
    layers: Layers | None,
    work: Path,
    told: Callable[[int, float], None],
) -> SpotterNetwork:
    """The trained network.

    Args:
        config: sizes.
        recipe: how.
        clips: speech to make examples of.
        layers: of the speech embedding, as `embedding.read` gives them; None for random ones.
        work: folder for the state of training; it goes on from there.
        told: called with the step and the mean loss lately.

    Raises:
        ConfigError: if the steps are no multiple of `PHASE`.
    """
    if recipe.steps % PHASE:
        raise ConfigError(
            f"{recipe.steps} updates are no multiple of {PHASE}; take {-(-recipe.steps // PHASE) * PHASE}"
        )
    torch.manual_seed(recipe.seed)
    network = SpotterNetwork(config, layers)
    tuned = [each for each in network.embedding.parameters() if each.requires_grad]
    others = [each for name, each in network.named_parameters() if not name.startswith("embedding.")]
    rates = [recipe.embedding_rate, recipe.learning_rate]
    optimiser = torch.optim.AdamW([{"params": tuned}, {"params": others}], weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, recipe.steps, pct_start=0.1)
    kept = work / "spotter-training.pt"
    step, losses = 0, []
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        if state["recipe"] == repr(recipe):
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            rate.load_state_dict(state["rate"])
            step = state["step"]
    network.train()
    while step < recipe.steps:
        phase = step // PHASE
        wide, narrow, labels = _made(clips, recipe, phase)
        begun = [network.embedding.begun(part.float()).half() for part in narrow.split(recipe.batch)]
        examples = TensorDataset(wide, torch.cat(begun), labels)
        order = torch.Generator().manual_seed(recipe.seed + phase)
        for _ in range(TIMES):
            for heard, first, wanted in DataLoader(examples, recipe.batch, shuffle=True, generator=order):
                together, alone = network.judged(heard.float(), first.float())
                value = loss(together, wanted, recipe.stop_weight)
                parts = sum((loss(each, wanted, recipe.stop_weight) for each in alone), torch.zeros(()))
                optimiser.zero_grad()
                (value + ALONE_SHARE * parts).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
                rate.step()
                losses.append(value.item())
        step += PHASE
        _keep(kept, {"network": network, "optimiser": optimiser, "rate": rate}, step, recipe)
        told(step, float(np.mean(losses[-PHASE:])))
    return network.eval()


def _keep(path: Path, parts: dict[str, Any], step: int, recipe: SpotterRecipe) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**states, "step": step, "recipe": repr(recipe)}, fresh)
    fresh.replace(path)


def _made(clips: Sequence[Clip], recipe: SpotterRecipe, phase: int) -> list[torch.Tensor]:
    """Features, wide and narrow, and labels of a phase's examples, always the same for a seed; processes of their own
    make them."""
    count, rest = divmod(PHASE * recipe.batch // TIMES, WORKERS)
    shares = [((recipe.seed, phase, at), count + (at < rest)) for at in range(WORKERS)]
    # Handed over by the fork: to send gigabytes of speech takes longer than to make the examples.
    with multiprocessing.get_context("fork").Pool(WORKERS, _take, (clips,)) as pool:
        parts = pool.starmap(_share, shares, chunksize=1)
    return [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)]


_clips: list[Clip] = []
"""Of a process that makes examples."""


def _take(clips: Sequence[Clip]) -> None:
    _clips[:] = clips


def _share(seed: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    maker = ExampleMaker(_clips, seed)
    examples = [maker.make() for _ in range(count)]
    wide, narrow = (
        np.stack([each.astype(np.float16) for each in features])
        for features in ([example.wide for example in examples], [example.narrow for example in examples])
    )
    return wide, narrow, np.stack([example.labels for example in examples])
