"""Wordings of the 34 tasks: templates to train on, and a separate set of sentences that is kept for validation.

In a template `(a|b|)` stands for one of the alternatives, and `<name>` for one of those listed under `words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_sim.environment import BLOCKS
from deer_sim.tasks import TASKS

_FOLDER = Path(__file__).with_name("wordings")
_CHOICE = re.compile(r"\(([^()]*)\)|<(\w+)>")


def expanded(template: str, words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every sentence that a template stands for, with single spaces.

    Args:
        template: see the module.
        words: alternatives by name.
    """
    parts: list[Sequence[str]] = []
    end = 0
    for match in _CHOICE.finditer(template):
        alternatives, name = match.groups()
        parts += [(template[end : match.start()],), alternatives.split("|") if name is None else words[name]]
        end = match.end()
    for choice in product(*parts, (template[end:],)):
        yield " ".join("".join(choice).split())


@cache
def _wordings(kind: str) -> dict[str, tuple[str, ...]]:
    """Sentences by task, with the blocks' colours filled in."""
    import yaml

    entries: dict[str, Any] = yaml.safe_load((_FOLDER / f"{kind}.yaml").read_text(encoding="utf-8"))
    words = entries.pop("words", {})
    table: dict[str, tuple[str, ...]] = {}
    for pattern, templates in entries.items():
        sentences = [sentence for template in templates for sentence in expanded(template, words)]
        for block in BLOCKS if "{block}" in pattern else ("",):
            table[pattern.format(block=block)] = tuple(sentence.format(block=block) for sentence in sentences)
    return table


def _of(kind: str, task: str) -> tuple[str, ...]:
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; allowed: {', '.join(TASKS)}")
    return _wordings(kind)[task]


@cache
def training(task: str) -> tuple[str, ...]:
    """Wordings of a task to train on, none of them kept for validation. Raises ConfigError for an unknown task."""
    kept = set(validation(task))
    return tuple(text for text in _of("training", task) if text not in kept)


def validation(task: str) -> tuple[str, ...]:
    """Wordings of a task that are never trained on. Raises ConfigError for an unknown task."""
    return _of("validation", task)
