"""What came of each chain, as one JSON line each, in a file that survives a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from deer_policies.errors import ConfigError
from deer_sim.rollout import RolloutResult

RESULTS, SETTINGS = "results.jsonl", "settings.json"


@dataclass(frozen=True)
class SubtaskResult:
    """A subtask's outcome and cost; see `deer_sim.rollout.RolloutResult` for units and for what counts as a step."""

    task: str
    instruction: str
    success: bool
    steps: int
    exit_counts: dict[str, int]
    mean_exit_layers: float
    mean_llm_gmac: float
    full_llm_gmac: float
    mean_total_gmac: float
    full_total_gmac: float

    @property
    def policy_steps(self) -> int:
        """Control steps at which the policy was asked; 0 where nothing is reported."""
        return sum(self.exit_counts.values())

    @classmethod
    def of(cls, task: str, instruction: str, result: RolloutResult) -> SubtaskResult:
        """From what a rollout returned."""
        return cls(
            task=task,
            instruction=instruction,
            success=result.success,
            steps=result.steps,
            exit_counts={str(index): count for index, count in result.exit_counts.items()},
            mean_exit_layers=result.mean_exit_layers,
            mean_llm_gmac=result.mean_llm_gmac,
            full_llm_gmac=result.full_llm_gmac,
            mean_total_gmac=result.mean_total_gmac,
            full_total_gmac=result.full_total_gmac,
        )


@dataclass(frozen=True)
class ChainResult:
    """A chain's subtasks up to the first that failed.

    Attributes:
        key: of the `Chain`.
        planned: subtasks that the chain has.
        subtasks: those that were tried.
        film: its film's path beside the results; empty if none was made.
        steps: the path of its `step_record.StepRecord` beside the results; empty if none was kept.
    """

    key: str
    planned: int
    subtasks: tuple[SubtaskResult, ...]
    film: str = ""
    steps: str = ""

    @property
    def solved(self) -> int:
        """Subtasks that were solved in a row."""
        return sum(subtask.success for subtask in self.subtasks)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> ChainResult:
        """The inverse of `dataclasses.asdict`."""
        subtasks = tuple(SubtaskResult(**subtask) for subtask in entry["subtasks"])
        return cls(**{**entry, "subtasks": subtasks})


class Store(Protocol):
    """Where results go while they come in."""

    def add(self, result: ChainResult) -> None:
        """Writes one result; once this returns, a kill can't take it back."""
        ...


def read_results(folder: Path) -> list[ChainResult]:
    """Results written so far; a last line cut short by a kill is dropped, to be run again.

    Raises:
        ConfigError: if a complete line is not a result.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    complete = path.read_text().split("\n")[:-1]
    try:
        return [ChainResult.from_json(json.loads(line)) for line in complete]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path} holds a line that is no result of this version of `deer eval` ({error}); use another folder"
        ) from error


class _File:
    def __init__(self, file: Any) -> None:
        self._file = file

    def add(self, result: ChainResult) -> None:
        self._file.write(json.dumps(asdict(result)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def open_store(folder: Path) -> Iterator[tuple[list[ChainResult], Store]]:
    """The results that are there, and a store that appends to them; a line that was cut short is removed first.

    Raises:
        ConfigError: if another process is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another evaluation is writing to {folder}; wait for it or use another one") from error
        yield from _opened(folder)


def _opened(folder: Path) -> Iterator[tuple[list[ChainResult], Store]]:
    done = read_results(folder)
    path = folder / RESULTS
    whole = "".join(json.dumps(asdict(result)) + "\n" for result in done)
    if not path.exists() or path.read_text() != whole:
        partial = path.with_suffix(".part")
        partial.write_text(whole)
        partial.replace(path)
    with open(path, "a") as file:
        yield done, _File(file)


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Notes in a folder what its results depend on.

    Args:
        folder: for results; new, empty, or claimed with the same settings before.
        settings: plain JSON values.

    Raises:
        ConfigError: if the folder's results were made with other settings, or it is of an older form.
    """
    path = folder / SETTINGS
    plain = json.loads(json.dumps(settings))
    if path.exists():
        before = json.loads(path.read_text())
        other = sorted(name for name in plain.keys() | before.keys() if before.get(name) != plain.get(name))
        if other:
            told = ", ".join(f"{name} {before.get(name)} and not {plain.get(name)}" for name in other)
            raise ConfigError(f"{folder} holds results of other settings ({told}); use another folder with --out")
        return
    if (folder / RESULTS).exists():
        raise ConfigError(f"{folder} holds results but no {SETTINGS} that says what of; use another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(plain, indent=1) + "\n")
    partial.replace(path)
