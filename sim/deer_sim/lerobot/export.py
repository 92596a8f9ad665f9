"""Exports a split in CALVIN's layout as a dataset in LeRobot's format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.dataset import CalvinDataset
from deer_sim.lerobot.format import CAMERAS, FRAME, exported_arrays, feature_name, features_of, require_pyarrow
from deer_sim.lerobot.writing import LeRobotWriter


def export_split(
    folder: Path, out: Path, video: bool = False, progress: Callable[[int, int], None] | None = None
) -> tuple[int, int]:
    """Writes an episode for each annotated window; what is not annotated, depth and tactile images are left out.

    Args:
        folder: of the split.
        out: new folder; it appears under this name once it is complete.
        video: images as H.264 (smaller, but not the same pixels) instead of PNG.
        progress: called after each episode with the episodes done and all.

    Returns:
        Numbers of episodes and of frames.

    Raises:
        ConfigError: if the split is damaged, `out` is there already, or PyArrow is missing.
    """
    require_pyarrow()
    if out.exists():
        raise ConfigError(f"{out} is there already; name a new folder")
    dataset = CalvinDataset(folder)
    if not dataset.annotations:
        raise ConfigError(f"{folder} has no annotation, so there is no episode to export")
    first = dataset.frame(dataset.annotations[0].start)
    arrays = exported_arrays(first)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ThreadPoolExecutor() as pool, LeRobotWriter(partial, features_of(first, video)) as writer:
        for count, item in enumerate(dataset.annotations, 1):
            numbers = range(item.start, item.end)
            frames = list(pool.map(dataset.frame, numbers))
            for number, frame in zip(numbers, frames, strict=True):
                _require_alike(number, frame, first, arrays)
            values = {
                feature_name(name): np.stack([frame[name] for frame in frames]).reshape(len(frames), -1)
                for name in arrays
                if name not in CAMERAS
            }
            values[FRAME] = np.array(numbers)[:, None]
            images = {feature: [frame[name] for frame in frames] for name, feature in CAMERAS.items()}
            extras = {"calvin/task": item.task, "calvin/scene": dataset.scene_of(item.start) or ""}
            writer.add(values, images, item.instruction, **extras)
            if progress:
                progress(count, len(dataset.annotations))
    os.replace(partial, out)
    return writer.episodes, writer.frames


def _require_alike(number: int, frame: dict[str, np.ndarray], first: dict[str, np.ndarray], arrays: list[str]) -> None:
    """LeRobot has one description for all frames."""
    for name in arrays:
        value = frame.get(name)
        if value is None or (value.dtype, value.shape) != (first[name].dtype, first[name].shape):
            raise ConfigError(
                f"frame {number} has another {name} than the first frame, which is {first[name].shape} "
                f"{first[name].dtype}; export such frames as a dataset of their own"
            )
