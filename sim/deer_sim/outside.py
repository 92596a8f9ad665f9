"""Texts that ask for none of the 34 tasks: templates to train a recogniser on, and others that judge it.

`wordings/outside.yaml` holds the templates. The last fifth of each of its lists is kept apart for the choice of a
threshold, so that this meets things and phrases that the training has not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_sim.framing import Framer, orders, remark
from deer_sim.instructions import plain_training
from deer_sim.tasks import TASKS
from deer_sim.templates import Phrases

GROUPS = ("near", "far")
"""Of the texts that judge: the tasks' own things or verbs, yet impossible or not asked for; and anything else."""
DRAWN = 9000
"""Plain texts to train on, and in each of the styles of `framing` half as many."""
TUNING = 1500
_FOLDER = Path(__file__).with_name("wordings")
_SHARED = ("colour", "blk", "side", "turned", "from", "thing")
"""Words that the tasks themselves are made of; nothing of them is kept apart."""


@cache
def training() -> tuple[str, ...]:
    """Texts to train on; the same ones each time."""
    return _drawn(_split(apart=False), DRAWN, random.Random(1))


@cache
def tuning() -> tuple[str, ...]:
    """Texts to choose a threshold with, of words and templates that `training` does not use."""
    trained = set(training())
    return tuple(text for text in _drawn(_split(apart=True), TUNING, random.Random(2)) if text not in trained)


@cache
def validation(group: str) -> tuple[str, ...]:
    """Texts that judge, of one of `GROUPS`. Raises ConfigError for another one."""
    if group not in GROUPS:
        raise ConfigError(f"unknown group of texts {group!r}; allowed: {', '.join(GROUPS)}")
    return tuple(_read("outside_validation")[group])


def _read(name: str) -> dict[str, Any]:
    import yaml

    table: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return table


def _split(apart: bool) -> dict[str, Any]:
    table = _read("outside")

    def part(items: Sequence[str]) -> Sequence[str]:
        first = len(items) - max(1, len(items) // 5)
        return items[first:] if apart else items[:first]

    words = {name: items if name in _SHARED else part(items) for name, items in table["words"].items()}
    return {"words": words, "templates": {name: part(items) for name, items in table["templates"].items()}}


def _drawn(material: Mapping[str, Any], count: int, rng: random.Random) -> tuple[str, ...]:
    phrases, kinds = Phrases(material["words"]), list(material["templates"].values())
    asked_for = [orders(plain_training(task)) for task in TASKS]

    def text() -> str:
        if rng.random() < 0.1:
            return remark(rng)
        drawn = phrases.draw(rng.choice(rng.choice(kinds)), rng)
        return " ".join(drawn.replace("{order}", rng.choice(rng.choice(asked_for))).split())

    plain = [text() for _ in range(count)]
    framer = Framer(plain, [[plain_training(task) for task in TASKS]], rng)
    framed = [style() for style in (framer.spoken, framer.wordy) for _ in range(count // 2)]
    kept = {text for group in GROUPS for text in validation(group)}
    return tuple(text for text in dict.fromkeys((*plain, *framed)) if text and text not in kept)
