"""What an evaluation runs: chains of subtasks, each from a known start, planned from a seed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError, listed
from deer_sim import instructions
from deer_sim.calvin.rules import Condition
from deer_sim.calvin.sequences import SCENE, TaskSequence, start_state
from deer_sim.starts import sample_condition, sample_start
from deer_sim.tasks import TASKS

Wording = Callable[[str, np.random.Generator], str]
"""The words for a task; the generator chooses where there are several."""


@dataclass(frozen=True)
class Subtask:
    """The task that a subtask is judged by, and the words that a policy gets."""

    task: str
    instruction: str


@dataclass(frozen=True)
class Chain:
    """Subtasks that follow each other without a reset; the first that fails ends the chain.

    Attributes:
        key: names the chain in result files; it says all that the chain follows from.
        seed: for the environment's reset.
        robot_obs, scene_obs: the start, (15,) and (24,).
        subtasks: in order.
        settles: whether what a reset puts down comes to rest first, see `settling`; CALVIN's sequences begin at once.
    """

    key: str
    seed: int
    robot_obs: tuple[float, ...]
    scene_obs: tuple[float, ...]
    subtasks: tuple[Subtask, ...]
    settles: bool = False


def own_wording(task: str, rng: np.random.Generator, group: str = instructions.WRITTEN) -> str:
    """One of our own validation wordings, which no training uses; see `instructions.validation` for the groups."""
    wordings = instructions.validation(task, group)
    return wordings[rng.integers(len(wordings))]


def annotated_wording(path: Path) -> Wording:
    """The first sentence for each task in a YAML file of CALVIN's form, `task: [sentence, ...]`.

    Raises:
        ConfigError: if the file can't be read or a task has no sentence.
    """
    import yaml

    try:
        table: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"can't read annotations from {path}: {error}") from error
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path} holds no table of sentences; it must be YAML with `task: [sentence]` for each task")
    missing = [task for task in TASKS if not (isinstance(table.get(task), list) and table[task])]
    if missing:
        raise ConfigError(f"{path} has no sentence for {listed(missing)}; it must have one for every task")
    return lambda task, rng: str(table[task][0])


def sequence_chains(sequences: Sequence[TaskSequence], seed: int, scene: str, wording: Wording) -> list[Chain]:
    """CALVIN's long-horizon evaluation: see `deer_sim.calvin.sequences.task_sequences`, which `seed` was given to.

    The benchmark places blocks in scene D. Another scene gets the same tasks, with arm and blocks where there is room.

    Raises:
        SimulatorError: if the scene is unknown.
    """
    chains = []
    for number, sequence in enumerate(sequences):
        robot_obs, scene_obs = _start(sequence.condition, seed, number, scene)
        rng = np.random.default_rng([seed, number])
        subtasks = tuple(Subtask(task, wording(task, rng)) for task in sequence.tasks)
        key = f"sequence/{seed}/{number:04d}" if scene == SCENE else f"{scene}/sequence/{seed}/{number:04d}"
        chains.append(Chain(key, seed, tuple(robot_obs.tolist()), tuple(scene_obs.tolist()), subtasks))
    return chains


def _start(condition: Condition, seed: int, number: int, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """robot_obs (15,) and scene_obs (24,)."""
    if scene == SCENE:
        return start_state(condition, seed)
    start = sample_condition(condition, scene, np.random.default_rng([seed, number, 1]))
    return start.robot_obs, start.scene_obs


def task_chains(
    scene: str, tasks: Sequence[str], starts: int, seed: int, wording: Wording = own_wording
) -> list[Chain]:
    """Single subtasks from random starts.

    Raises:
        ConfigError: for an unknown task, and for one that starts with a block in the gripper, which a reset can't give.
    """
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise ConfigError(f"unknown tasks {unknown}; allowed are {', '.join(TASKS)}")
    chains = []
    for task in tasks:
        for index in range(starts):
            rng = np.random.default_rng([seed, index, TASKS.index(task)])
            start = sample_start(task, scene, rng)
            if start.prefix:
                raise ConfigError(f"task {task} starts after {start.prefix}; score it within a sequence instead")
            subtask = Subtask(task, wording(task, rng))
            reset_seed = int(rng.integers(2**31))
            key = f"{scene}/{task}/{seed}/{index}"
            robot_obs, scene_obs = tuple(start.robot_obs.tolist()), tuple(start.scene_obs.tolist())
            chains.append(Chain(key, reset_seed, robot_obs, scene_obs, (subtask,), settles=True))
    return chains
