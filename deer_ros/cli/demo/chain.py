"""Draws the demonstration's start and its chain of five instructions, valid for that start, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import SimulatorError
from deer_sim import instructions
from deer_sim.starts import Start, possible_fixture_tasks, sample_start

LIGHTS = ("lightbulb", "led")
MAX_TRIES = 100


@dataclass(frozen=True)
class Link:
    """One subtask of the chain: the task that it is judged by, and the words that the robot gets."""

    task: str
    instruction: str


@dataclass(frozen=True)
class Chain:
    """A start and five links: each of the four fixtures once, and the first one, a light, back at the end."""

    start: Start
    links: tuple[Link, ...]


def draw_chain(scene: str, seed: int) -> Chain:
    """Draws a chain; the same seed gives the same one.

    The fixture that is moved back is a light, since a drawer or door that was opened just far enough for its task
    stands too near for the task the other way.

    Raises:
        SimulatorError: if there is no such scene.
    """
    rng = np.random.default_rng(seed)
    for _ in range(MAX_TRIES):
        first, last = (str(light) for light in rng.permutation(LIGHTS))
        start = sample_start(f"turn_on_{first}" if rng.integers(2) else f"turn_off_{first}", scene, rng)
        possible = possible_fixture_tasks(start.scene_obs, scene)
        if set(possible) == {"slider", "drawer", *LIGHTS}:
            middle = [str(fixture) for fixture in rng.permutation(["slider", "drawer", last])]
            tasks = [possible[fixture] for fixture in (first, *middle)] + [turned_back(possible[first])]
            return Chain(start, tuple(Link(task, _wording(task, rng)) for task in tasks))
    raise SimulatorError(f"no start in scene {scene} allowed a chain of five in {MAX_TRIES} tries")


def turned_back(task: str) -> str:
    """The task that undoes a light's task."""
    return task.replace("_on_", "_off_") if "_on_" in task else task.replace("_off_", "_on_")


def _wording(task: str, rng: np.random.Generator) -> str:
    """One of the task's wordings that no training uses."""
    wordings = instructions.validation(task)
    return wordings[rng.integers(len(wordings))]
