"""Starts in the middle of a chain: other tasks have left the arm, the fixtures and the blocks where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deer_policies.errors import SimulatorError
from deer_sim.calvin.rules import CATEGORIES, Condition, after, defies_door, starting_conditions
from deer_sim.calvin.sequences import SCENE, start_state
from deer_sim.starts import Start, sample_condition

LONGEST = 4
"""Tasks before the one that a start is for."""
EVALUATION_SHARE = 0.5
"""Share of the starts in the benchmark's own scene that have the arm and the blocks where its sequences start."""
_TRIES = 10_000
_STATES = 2**31


def chained_start(task: str, scene: str, tasks: Sequence[str], rng: np.random.Generator) -> Start:
    """Draws a start whose prefix are one to four tasks, none of a kind with another or `task`, as in the benchmark.

    Args:
        task: what is possible after the prefix.
        scene: letter of the scene.
        tasks: those that the prefix is taken from.
        rng: source of all choices.

    Raises:
        SimulatorError: if no such prefix was found; `unstack_block` needs `stack_block` and a lift among the tasks.
    """
    conditions = starting_conditions()
    for _ in range(_TRIES):
        condition = conditions[rng.integers(len(conditions))]
        prefix = _walk(task, condition, tasks, rng)
        if prefix and not defies_door((*prefix, task)):
            if scene == SCENE and rng.random() < EVALUATION_SHARE:
                # Never the official seed, which is 0.
                return Start(*start_state(condition, 1 + int(rng.integers(_STATES))), prefix)
            return replace(sample_condition(condition, scene, rng), prefix=prefix)
    raise SimulatorError(f"found no chain of {', '.join(tasks)} after which {task} is possible; allow more tasks")


def _walk(task: str, condition: Condition, tasks: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Tasks that can be done one after the other and then `task`; none if the first walk does not lead there."""
    state: Condition = condition
    length = int(rng.integers(1, LONGEST + 1))
    done: list[str] = []
    for _ in range(length):
        kinds = {CATEGORIES[task], *(CATEGORIES[before] for before in done)}
        possible = [(each, then) for each in tasks if CATEGORIES[each] not in kinds and (then := after(each, state))]
        if not possible:
            return ()
        each, state = possible[rng.integers(len(possible))]
        done.append(each)
        if after(task, state) is not None and rng.random() < 0.5:
            break
    return tuple(done) if after(task, state) is not None else ()
