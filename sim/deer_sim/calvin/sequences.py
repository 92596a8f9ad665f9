"""CALVIN's 1000 evaluation sequences, made from the rules, and the simulator states that they start in.

Everything follows from a seed. Seed 0 gives the official sequences and starts, number for number; another seed gives
1000 others by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.calvin.rules import CATEGORIES, Condition, after, starting_conditions
from deer_sim.environment import BLOCKS
from deer_sim.tasks import TASKS

SEQUENCES = 1000
LENGTH = 5
"""Tasks in a sequence."""
OFFICIAL_SEED = 0
SCENE = "D"
"""The places of blocks are those of this scene, which CALVIN evaluates in."""

START_ROBOT_OBS = (
    *(0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963),
    *(-1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0),
)
"""robot_obs (15,) at the start of every sequence."""
_SLIDER_OPEN_M, _DRAWER_OPEN_M, _SWITCH_ON_M = 0.28, 0.22, 0.088
_CABINET_M = {
    "slider_left": (-0.240851662, 0.0924044687, 0.460990009),
    "slider_right": (0.0703416330, 0.0924044687, 0.460990009),
}
_TABLE_M = ((0.0500000896, -0.120000177, 0.459990009), (0.229995412, -0.119995140, 0.459990010))
"""Places (xyz) of a block behind the door and on the table."""
_YAW_RAD = (math.pi / 2 - math.pi / 8, math.pi / 2 + math.pi / 8)
_FNV_PRIME = 0x01000193
_BLOCK = 512


@dataclass(frozen=True)
class TaskSequence:
    """One entry of the benchmark.

    Attributes:
        condition: symbolic state at the start.
        tasks: five names, each possible after the one before.
    """

    condition: Condition
    tasks: tuple[str, ...]


def task_sequences(count: int = SEQUENCES, seed: int = OFFICIAL_SEED) -> list[TaskSequence]:
    """The first `count` sequences of a seed, in the benchmark's order.

    Raises:
        ConfigError: if `count` is not in 1 to 1000 or the seed is negative.
    """
    if not 1 <= count <= SEQUENCES:
        raise ConfigError(f"{count} sequences were asked for; the benchmark has {SEQUENCES}: ask for 1 to {SEQUENCES}")
    if seed < 0:
        raise ConfigError(f"the seed of the sequences is {seed}; it must be 0 (the official ones) or more")
    conditions = starting_conditions()
    owners = [
        (index, place)
        for index, part in enumerate(np.array_split(np.arange(SEQUENCES), len(conditions)))
        for place in range(len(part))
    ]
    np.random.RandomState(seed).shuffle(owners)
    drawn: dict[int, list[tuple[str, ...]]] = {}
    for index in {index for index, _ in owners[:count]}:
        needed = 1 + max(place for owner, place in owners[:count] if owner == index)
        drawn[index] = _drawn(conditions[index], needed, _generator(index, seed))
    return [TaskSequence(conditions[index], drawn[index][place]) for index, place in owners[:count]]


def _generator(number: int, seed: int) -> np.random.RandomState:
    """Randomness for a state's number or hash; the official one knows no seed."""
    return np.random.RandomState(number if seed == OFFICIAL_SEED else [number, seed])


def _drawn(condition: Condition, count: int, rng: np.random.RandomState) -> list[tuple[str, ...]]:
    """The first `count` sequences from a state: five random tasks at a time, until they can be done one by one.

    About one draw in 500 can be, so draws are sorted out in blocks.
    """
    found: list[tuple[str, ...]] = []
    categories = np.unique([CATEGORIES[task] for task in TASKS], return_inverse=True)[1]
    begins = np.array([after(task, condition) is not None for task in TASKS])
    # What RandomState.choice(len(TASKS), LENGTH, replace=False) draws, without its overhead.
    unshuffled = np.arange(len(TASKS))
    order = unshuffled.copy()
    block = np.empty((_BLOCK, LENGTH), np.int64)
    while len(found) < count:
        for row in block:
            order[:] = unshuffled
            rng.shuffle(order)
            row[:] = order[:LENGTH]
        kinds = np.sort(categories[block], axis=1)
        for row in block[begins[block[:, 0]] & (np.diff(kinds, axis=1) > 0).all(axis=1)]:
            tasks = tuple(TASKS[index] for index in row)
            if _possible(tasks, condition):
                found.append(tasks)
    return found[:count]


def _possible(tasks: Sequence[str], condition: Condition) -> bool:
    """Whether each task can be done after the one before."""
    state: Condition | None = condition
    for task in tasks:
        if state is not None:
            state = after(task, state)
    return state is not None


def fnv1_32(text: str) -> int:
    """The hash that CALVIN seeds starts by: FNV-1 as pyhash 0.9.3 has it, over UTF-16-LE and starting from 0."""
    value = 0
    for byte in text.encode("utf-16-le"):
        value = (value * _FNV_PRIME & 0xFFFFFFFF) ^ byte
    return value


def start_state(condition: Condition, seed: int = OFFICIAL_SEED) -> tuple[np.ndarray, np.ndarray]:
    """robot_obs (15,) and scene_obs (24,) of scene D for a symbolic state, as CALVIN's evaluation draws them."""
    rng = _generator(fnv1_32(f"dict_values({list(condition.values())})"), seed)
    spots = [np.array(spot) for spot in _TABLE_M]
    rng.shuffle(spots)
    scene = np.zeros(24)
    scene[0] = _SLIDER_OPEN_M * (condition["slider"] == "left")
    scene[1] = _DRAWER_OPEN_M * (condition["drawer"] == "open")
    scene[3] = _SWITCH_ON_M * (condition["lightbulb"] == 1)
    scene[4], scene[5] = condition["lightbulb"], condition["led"]
    for index, colour in enumerate(BLOCKS):
        place = str(condition[f"{colour}_block"])
        # On the table red always takes the first spot, pink always the second.
        first = colour == "red" or (colour == "blue" and condition["red_block"] != "table")
        scene[6 + 6 * index : 9 + 6 * index] = _CABINET_M.get(place, tuple(spots[0 if first else 1]))
        scene[11 + 6 * index] = rng.uniform(*_YAW_RAD)
    return np.array(START_ROBOT_OBS), scene
