"""Cells of the tables: evaluations of the same chains, each run once by `deer eval`, which goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.deer.checkpoint import acting_sha256
from deer_policies.errors import ConfigError
from deer_ros.cli.evaluation_report import REPORT
from deer_ros.cli.main import parsed
from deer_sim.results import read_results
from deer_sim.statistics import paired_difference

SEED = 0
"""Of the bootstrap."""
Deer = Callable[[Sequence[str]], None]
"""Runs a `deer` command."""


def deer(arguments: Sequence[str]) -> None:
    """Runs a `deer` command in this process. Raises DeerError for what it can't do."""
    command = parsed(arguments)
    command.run(command)


@dataclass(frozen=True)
class Scored:
    """A finished cell: the content of its report.json, and the subtasks that each chain solved in a row, by key."""

    report: dict[str, Any]
    solved: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> Scored:
        """From the folder of a finished evaluation.

        Raises:
            ConfigError: if it holds other chains than its report.
        """
        report = json.loads((folder / REPORT).read_text())
        solved = {result.key: result.solved for result in read_results(folder)}
        if len(solved) != report["sequences"]:
            raise ConfigError(
                f"{folder} holds {len(solved)} chains, and {report['sequences']} are asked for; use another --out"
            )
        return cls(report, solved)

    def minus(self, other: Scored) -> tuple[float, float, float]:
        """Difference in average length over the same chains, with its 95 % interval (paired bootstrap)."""
        keys = sorted(self.solved)
        if keys != sorted(other.solved):
            raise ConfigError("these cells ran different chains, so that nothing can be paired")
        first, second = (np.array([float(cell.solved[key]) for key in keys]) for cell in (self, other))
        return paired_difference(first, second, np.random.default_rng(SEED))


class Cells:
    """Runs cells on one ground, and finds those that are finished."""

    def __init__(self, folder: Path, ground: Sequence[str], run: Deer = deer) -> None:
        """Args:
        folder: for one folder of results for each cell.
        ground: options of `deer eval` that say what is run: the same for all cells.
        run: see `Deer`.
        """
        self.ground = tuple(ground)
        self.used: dict[str, Scored] = {}
        self._folder = folder
        self.run = run

    def scored(self, name: str, policy: Path, *options: str) -> Scored:
        """The cell of this name: a policy under further options of `deer eval`."""
        if name not in self.used:
            folder = self._folder / name
            command = ["eval", "--policy", str(policy), *self.ground, *options, "--films", "0", "--out", str(folder)]
            if not _finished(folder, command, policy):
                print(f"== cell {name}", flush=True)
                self.run(command)
            self.used[name] = Scored.read(folder)
        return self.used[name]


def _finished(folder: Path, command: Sequence[str], policy: Path) -> bool:
    path = folder / REPORT
    if not path.is_file():
        return False
    report = json.loads(path.read_text())
    same = report["command"] == parsed(command).command_line
    return same and report["weights_sha256"] == acting_sha256(policy)
