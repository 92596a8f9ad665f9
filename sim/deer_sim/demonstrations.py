"""Makes a dataset of expert demonstrations: parallel, resumable, the same files for any number of workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError, DeerError
from deer_sim import instructions
from deer_sim.collection import Disturbance, Episode, begin_at, collect_episode
from deer_sim.dataset import Annotation, Statistics, write_frames, write_index, write_whole
from deer_sim.environment import Environment
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.scene import find_scene
from deer_sim.rollout import MAX_STEPS
from deer_sim.starts import sample_start
from deer_sim.tasks import TASKS
from deer_sim.workers import worker_pool

SLOT = MAX_STEPS
"""Frame numbers kept for each episode, so that workers need not know how long the others' episodes are."""
ATTEMPTS = 5
"""Starts that are tried for one episode until the expert solves its task."""
_RECORDS = ".records"
_PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What a dataset holds; all of its content follows from these values.

    Attributes:
        scene: of all episodes.
        tasks: done in turn.
        episodes: in all.
        seed: of starts, wordings and disturbances.
        wordings: 'training' or 'validation', the set of instructions that is drawn from.
        disturbance: pushes and jitter during the demonstrations; None leaves the expert alone.
    """

    scene: str
    tasks: tuple[str, ...]
    episodes: int
    seed: int
    wordings: str = "training"
    disturbance: Disturbance | None = field(default_factory=Disturbance)

    def __post_init__(self) -> None:
        find_scene(self.scene)
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown or not self.tasks:
            raise ConfigError(f"tasks {unknown or 'are empty'}; choose some of: {', '.join(TASKS)}")
        limit = 10**7 // SLOT
        if not 1 <= self.episodes <= limit:
            raise ConfigError(f"episodes is {self.episodes}; the layout's seven-digit frame numbers allow 1 to {limit}")
        if self.wordings not in ("training", "validation"):
            raise ConfigError(f"wordings is {self.wordings!r}; it must be 'training' or 'validation'")

    def task(self, index: int) -> str:
        """The task of an episode."""
        return self.tasks[index % len(self.tasks)]


@dataclass(frozen=True)
class Record:
    """What is known of a finished episode: its annotation, the starts that were tried, and its statistics' sums."""

    index: int
    instruction: str
    task: str
    start: int
    end: int
    attempts: int
    disturbed: int
    sums: list[float]
    squares: list[float]
    lowest: list[float]
    highest: list[float]

    @property
    def annotation(self) -> Annotation:
        """For the index."""
        return Annotation(self.instruction, self.task, self.start, self.end)

    @property
    def statistics(self) -> Statistics:
        """For the index."""
        sums = (np.array(values) for values in (self.sums, self.squares, self.lowest, self.highest))
        return Statistics(self.end - self.start, *sums)


def demonstrate(plan: Plan, index: int, environment: Environment, expert: Expert) -> tuple[Episode, int]:
    """Makes one episode of a plan from its own random numbers: the episode, and how many starts it took.

    Raises:
        DeerError: if the expert fails from `ATTEMPTS` starts.
    """
    task = plan.task(index)
    for attempt in range(1, ATTEMPTS + 1):
        rng = np.random.default_rng([plan.seed, ord(plan.scene), index, attempt])
        wordings = getattr(instructions, plan.wordings)(task)
        instruction = str(wordings[rng.integers(len(wordings))])
        first, _ = begin_at(environment, expert, sample_start(task, plan.scene, rng), int(rng.integers(2**31)))
        episode = collect_episode(environment, expert, task, instruction, first, rng, plan.disturbance)
        if episode.success:
            return episode, attempt
    raise DeerError(f"the expert failed {task} in scene {plan.scene} from {ATTEMPTS} starts; try another seed")


_worker: dict[str, Any] = {}


def _start_worker(plan: Plan, folder: Path) -> None:
    _worker.update(plan=plan, folder=folder, environment=PlayTable(plan.scene), expert=Expert(plan.scene))


def _run_in_worker(index: int) -> Record:
    plan, folder = _worker["plan"], _worker["folder"]
    episode, attempts = demonstrate(plan, index, _worker["environment"], _worker["expert"])
    first = index * SLOT
    write_frames(folder, first, episode)
    sums = Statistics.of(episode.robot_obs, episode.scene_obs, episode.actions)
    record = Record(
        index=index,
        instruction=episode.instruction,
        task=episode.task,
        start=first,
        end=first + episode.steps,
        attempts=attempts,
        disturbed=int(episode.disturbed.sum()),
        sums=sums.sums.tolist(),
        squares=sums.squares.tolist(),
        lowest=sums.lowest.tolist(),
        highest=sums.highest.tolist(),
    )
    write_whole(_record_path(folder, index), json.dumps(asdict(record)).encode())
    return record


def _record_path(folder: Path, index: int) -> Path:
    return folder / _RECORDS / f"{index:06d}.json"


def _claim(plan: Plan, folder: Path) -> None:
    """Notes the plan in a new folder; refuses a folder that was begun with another one."""
    path = folder / _RECORDS / _PLAN
    text = json.dumps(asdict(plan), indent=1)
    if path.exists():
        if path.read_text() != text:
            raise ConfigError(f"{folder} was begun with other settings (see {path}); choose another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and was not made by this command; choose another folder")
    write_whole(path, text.encode())


def collect(plan: Plan, folder: Path, workers: int = 1) -> Iterator[Record]:
    """Yields the record of each episode as it is finished, those of an earlier, interrupted run first; then the index.

    Args:
        plan: what to make.
        folder: where; new, empty, or begun with the same plan.
        workers: processes.

    Raises:
        ConfigError: if the folder holds something else, or `workers` is less than 1.
        DeerError: if the expert can't solve an episode; what is finished stays, and a later run goes on from there.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; at least 1 is needed")
    _claim(plan, folder)
    records: dict[int, Record] = {}
    for index in range(plan.episodes):
        path = _record_path(folder, index)
        if path.exists():
            records[index] = Record(**json.loads(path.read_text()))
            yield records[index]
    missing = [index for index in range(plan.episodes) if index not in records]
    if missing:
        with worker_pool(workers, _start_worker, (plan, folder)) as pool:
            for future in as_completed([pool.submit(_run_in_worker, index) for index in missing]):
                record = future.result()
                records[record.index] = record
                yield record
    _finish(plan, folder, [records[index] for index in range(plan.episodes)])


def _finish(plan: Plan, folder: Path, records: Sequence[Record]) -> None:
    """Removes what a kill has left and writes the index."""
    for partial in folder.glob(".episode_*"):
        partial.unlink()
    statistics = records[0].statistics
    for record in records[1:]:
        statistics = statistics + record.statistics
    recordings = [(record.start, record.end - 1) for record in records]
    scenes = {f"calvin_scene_{plan.scene}": (recordings[0][0], recordings[-1][1])}
    write_index(folder, recordings, [record.annotation for record in records], scenes, statistics)
