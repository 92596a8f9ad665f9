"""Wordings of the 34 tasks: templates to train on, and a separate set of sentences that is kept for validation.

The templates are those of `deer_sim.templates`.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_sim.environment import BLOCKS
from deer_sim.framing import Framer
from deer_sim.tasks import TASKS
from deer_sim.templates import expanded

WRITTEN, SPOKEN, WORDY = GROUPS = ("written", "spoken", "wordy")
"""How the sentences kept for validation are worded: plainly; as a speech recogniser gives them, with hesitations and
corrections; in 20 to 40 words, with context and politeness around one request."""
EVERY = "every"
"""Stands for all groups."""
_FILES = {WRITTEN: "validation", SPOKEN: "validation_spoken", WORDY: "validation_wordy"}
_FOLDER = Path(__file__).with_name("wordings")
FRAMED = 1500
"""Training sentences of a task in each of the styles of `framing`."""
_OPENINGS = ("cmd", "cmd4", "ask", "ask3", "want", "want3", "goal", "hope", "hope3")
"""Lists of words in the templates that only lead up to an order: without them the rest is one too."""
_OTHER = dict(zip(BLOCKS, (*BLOCKS[1:], BLOCKS[0]), strict=True))


@cache
def _entries(kind: str) -> dict[str, Any]:
    """What a file of wordings holds: templates by task, and the lists of `words` that they name."""
    import yaml

    entries: dict[str, Any] = yaml.safe_load((_FOLDER / f"{kind}.yaml").read_text(encoding="utf-8"))
    return entries


@cache
def _wordings(kind: str) -> dict[str, tuple[str, ...]]:
    """Sentences by task, with the blocks' colours filled in."""
    entries = _entries(kind)
    words = entries.get("words", {})
    table: dict[str, tuple[str, ...]] = {}
    for pattern, templates in entries.items():
        if pattern == "words":
            continue
        sentences = [sentence for template in templates for sentence in expanded(template, words)]
        for block in BLOCKS if "{block}" in pattern else ("",):
            colours = {"block": block, "other": _OTHER.get(block, "")}
            table[pattern.format(**colours)] = tuple(sentence.format(**colours) for sentence in sentences)
    return table


def _of(kind: str, task: str) -> tuple[str, ...]:
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; allowed: {', '.join(TASKS)}")
    return _wordings(kind)[task]


@cache
def training(task: str) -> tuple[str, ...]:
    """Wordings of a task to train on, plain, spoken and wordy; none of them is kept for validation.

    The same ones each time. Raises ConfigError for an unknown task.
    """
    plain = plain_training(task)
    framer = task_framer(task, random.Random(task))
    framed = (style() for style in (framer.spoken, framer.wordy) for _ in range(FRAMED))
    kept = _kept()
    return tuple(text for text in dict.fromkeys((*plain, *framed)) if text not in kept)


def task_framer(task: str, rng: random.Random) -> Framer:
    """Words requests of a task in other styles; it mistakes them for those of other tasks, most often similar ones."""
    others = [other for other in TASKS if other != task]
    parts = set(task.split("_"))
    near = [other for other in others if len(parts - set(other.split("_"))) <= 1]
    return Framer(plain_training(task), [[plain_training(name) for name in names] for names in (near, others)], rng)


@cache
def plain_training(task: str) -> tuple[str, ...]:
    """The core of `training`: sentences of the templates, with nothing around them."""
    kept = _kept()
    return tuple(text for text in dict.fromkeys(_of("training", task)) if text not in kept)


@cache
def bare(task: str) -> tuple[str, ...]:
    """Orders of `plain_training` without the words that lead up to them ("please", "could you"), where that is new.

    The shortest order of all ("open the drawer") is among these. Raises ConfigError for an unknown task.
    """
    words = _entries("training")["words"]
    openings = tuple(f"{opening} " for name in _OPENINGS for opening in words[name])
    plain, kept = plain_training(task), _kept()
    left = {
        text.removeprefix(max(filter(text.startswith, openings), key=len)): None
        for text in plain
        if text.startswith(openings) and not text.startswith(tuple(words["mind"]))
    }
    return tuple(text for text in left if text not in kept and text not in plain)


@cache
def _kept() -> frozenset[str]:
    return frozenset(text for task in TASKS for text in validation(task, EVERY))


def example(task: str) -> str:
    """A short plain sentence for the task, to show to a person. Raises ConfigError for an unknown task."""
    polite = [text for text in plain_training(task) if text.startswith("please ") and " one" not in text]
    return min(polite, key=len)


@cache
def group_of(text: str) -> str | None:
    """The group of `GROUPS` that a sentence kept for validation belongs to, None for any other text."""
    for group in GROUPS:
        if any(text in validation(task, group) for task in TASKS):
            return group
    return None


def validation(task: str, group: str = WRITTEN) -> tuple[str, ...]:
    """Wordings of a task that are never trained on.

    Args:
        task: one of `TASKS`.
        group: one of `GROUPS`, or `EVERY` for those of all groups.

    Raises:
        ConfigError: for an unknown task or group.
    """
    if group == EVERY:
        return tuple(text for each in GROUPS for text in validation(task, each))
    if group not in GROUPS:
        raise ConfigError(f"unknown group of wordings {group!r}; allowed: {', '.join((*GROUPS, EVERY))}")
    return _of(_FILES[group], task)
