"""Makes small splits in CALVIN's layout: real file names and shapes, tiny random images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deer_sim.dataset import Annotation, Statistics, write_frame, write_index

ANNOTATIONS = (
    Annotation("pull out the drawer", "open_drawer", 100, 108),
    Annotation("switch the light on", "turn_on_led", 104, 110),
    Annotation("open it", "open_drawer", 202, 209),
)
"""The first two share frames, as many of CALVIN's do."""
RECORDINGS = ((100, 111), (200, 209))
SIZES = {"rgb_static": 20, "rgb_gripper": 12}


def frame(number: int, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """The arrays of a frame, the same for the same number."""
    rng = np.random.default_rng(number)
    arrays: dict[str, np.ndarray] = {
        name: rng.uniform(-1, 1, size).astype(dtype)
        for name, size in (("actions", 7), ("rel_actions", 7), ("robot_obs", 15), ("scene_obs", 24))
    }
    closed = rng.random() < 0.5
    for name, place in (("actions", 6), ("rel_actions", 6), ("robot_obs", 14)):
        arrays[name][place] = -1.0 if closed else 1.0
    for name, size in SIZES.items():
        arrays[name] = rng.integers(0, 256, (size, size, 3), np.uint8)
    return arrays


def write_split(
    folder: Path,
    dtype: type = np.float64,
    annotations: Sequence[Annotation] = ANNOTATIONS,
    recordings: Sequence[tuple[int, int]] = RECORDINGS,
) -> Path:
    """A whole split, without faults; returns its folder."""
    numbers = [number for first, last in recordings for number in range(first, last + 1)]
    frames = {number: frame(number, dtype) for number in numbers}
    for number, arrays in frames.items():
        write_frame(folder, number, arrays)
    sums = Statistics.of(
        *(np.stack([arrays[name] for arrays in frames.values()]) for name in ("robot_obs", "scene_obs", "actions"))
    )
    write_index(folder, recordings, annotations, {"calvin_scene_D": (0, 999)}, sums)
    return folder
