"""Wordings of the 34 tasks: several to train on, and a separate set that is kept for validation."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_sim.environment import BLOCKS
from deer_sim.tasks import TASKS

_FILE = Path(__file__).with_name("instructions.yaml")
_KINDS = ("training", "validation")


@cache
def _wordings() -> dict[str, dict[str, tuple[str, ...]]]:
    """Sentences by kind and task, with the blocks' colours filled in."""
    import yaml

    entries: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    tables: dict[str, dict[str, tuple[str, ...]]] = {kind: {} for kind in _KINDS}
    for pattern, sentences in entries.items():
        for block in BLOCKS if "{block}" in pattern else ("",):
            for kind in _KINDS:
                tables[kind][pattern.format(block=block)] = tuple(text.format(block=block) for text in sentences[kind])
    return tables


def _of(kind: str, task: str) -> tuple[str, ...]:
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; allowed: {', '.join(TASKS)}")
    return _wordings()[kind][task]


def training(task: str) -> tuple[str, ...]:
    """Wordings of a task to train on. Raises ConfigError for an unknown task."""
    return _of("training", task)


def validation(task: str) -> tuple[str, ...]:
    """Wordings of a task that are never trained on. Raises ConfigError for an unknown task."""
    return _of("validation", task)
