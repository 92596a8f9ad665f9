"""Writes frames and index files in CALVIN's dataset layout."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.collection import Episode
from deer_sim.dataset.layout import (
    ANNOTATIONS,
    BOUNDS,
    LANGUAGE,
    LENGTHS,
    SCENES,
    STATISTICS,
    Annotation,
    frame_path,
    write_whole,
)
from deer_sim.dataset.pickles import dictionary_bytes
from deer_sim.dataset.statistics import Statistics

_EMBEDDING_SHAPE = (1, 0)


def write_frame(folder: Path, number: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file of one frame."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_whole(frame_path(folder, number), content.getvalue())


def write_frames(folder: Path, first: int, episode: Episode) -> None:
    """Writes an episode's frames, the first of them as number `first`. Raises ConfigError for one without images."""
    if episode.rgb_static is None or episode.rgb_gripper is None:
        raise ConfigError("the episode has no images; record it in an environment with cameras=True")
    for step in range(episode.steps):
        arrays = {
            "actions": episode.actions[step],
            "rel_actions": episode.rel_actions[step].astype(np.float64),
            "robot_obs": episode.robot_obs[step],
            "scene_obs": episode.scene_obs[step],
            "rgb_static": episode.rgb_static[step],
            "rgb_gripper": episode.rgb_gripper[step],
            "executed": episode.executed[step].astype(np.float64),
            "disturbed": episode.disturbed[step],
        }
        write_frame(folder, first + step, arrays)


def write_index(
    folder: Path,
    recordings: Sequence[tuple[int, int]],
    annotations: Sequence[Annotation],
    scenes: Mapping[str, tuple[int, int]],
    statistics: Statistics,
) -> None:
    """Writes the index files of a split whose frames are there.

    Args:
        folder: of the split.
        recordings: first and last frame of each recording, both inclusive.
        annotations: what is said about which frames.
        scenes: first and last frame of each scene by its name in CALVIN, such as 'calvin_scene_D'; empty if unknown.
        statistics: over all frames.
    """
    bounds = np.array(recordings, np.int64)
    for name, value in ((BOUNDS, bounds), (LENGTHS, bounds[:, 1] - bounds[:, 0] + 1)):
        content = io.BytesIO()
        np.save(content, value)
        write_whole(folder / name, content.getvalue())
    language = {
        "language": {
            "ann": [item.instruction for item in annotations],
            "task": [item.task for item in annotations],
            "emb": np.zeros((len(annotations), *_EMBEDDING_SHAPE), np.float32),
        },
        "info": {"indx": [(item.start, item.end) for item in annotations], "episodes": []},
    }
    write_whole(folder / LANGUAGE / ANNOTATIONS, dictionary_bytes(language))
    if scenes:
        write_whole(folder / SCENES, dictionary_bytes({name: list(span) for name, span in scenes.items()}))
    write_whole(folder / STATISTICS, statistics.text().encode())
