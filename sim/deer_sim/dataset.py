"""CALVIN's dataset layout on disk: one compressed .npz a frame, and index files that say which frames belong together.

    episode_0000000.npz        actions (7), rel_actions (7), robot_obs (15), scene_obs (24), rgb_static, rgb_gripper
    ep_start_end_ids.npy       (episodes, 2) first and last frame of each recording, both inclusive
    lang_annotations/auto_lang_ann.npy   instruction, task and frames (end exclusive) of each episode
    scene_info.npy             first and last frame of each scene
    statistics.yaml            mean and deviation of the observations, bounds of the absolute actions

Our frames carry two more arrays, which CALVIN's readers ignore: `executed` (7), the relative action that was run, where
`rel_actions` is the expert's label; and `disturbed`, whether a push was in progress that replaced the expert's action.
Sentence embeddings are not stored; `emb` is empty.

The layout keeps two of its files as dictionaries in numpy's pickle format. They are read by an unpickler that knows
arrays and plain values only, so that a file from elsewhere can't run code.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.collection import Episode

_ANNOTATIONS = Path("lang_annotations") / "auto_lang_ann.npy"
_EMBEDDING_SHAPE = (1, 0)
_FRAME_KEYS = ("actions", "rel_actions", "robot_obs", "scene_obs", "rgb_static", "rgb_gripper")
_PICKLED_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


@dataclass(frozen=True)
class Annotation:
    """One instruction being followed: its wording, task, and frames `start` to `end` - 1."""

    instruction: str
    task: str
    start: int
    end: int


@dataclass(frozen=True)
class Statistics:
    """Sums over frames from which a dataset's statistics follow; add them up with `+`.

    Attributes:
        count: frames.
        sums, squares: (39,) sums of robot_obs and scene_obs (15 + 24) and of their squares.
        lowest, highest: (7,) bounds of the absolute actions.
    """

    count: int
    sums: np.ndarray
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, episode: Episode) -> Statistics:
        """Sums of one episode."""
        values = np.concatenate([episode.robot_obs, episode.scene_obs], axis=1)
        actions = episode.actions
        return cls(len(values), values.sum(0), (values**2).sum(0), actions.min(0), actions.max(0))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.count + other.count,
            self.sums + other.sums,
            self.squares + other.squares,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    def text(self) -> str:
        """The content of statistics.yaml."""
        import yaml

        mean = self.sums / self.count
        deviation = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0))
        entries: dict[str, Any] = {
            name: [
                {
                    "_target_": "calvin_models.calvin_agent.utils.transforms.NormalizeVector",
                    "mean": mean[part].tolist(),
                    "std": deviation[part].tolist(),
                }
            ]
            for name, part in (("robot_obs", slice(0, 15)), ("scene_obs", slice(15, None)))
        }
        entries["act_max_bound"] = self.highest.tolist()
        entries["act_min_bound"] = self.lowest.tolist()
        return yaml.safe_dump(entries, sort_keys=False)


def frame_path(folder: Path, frame: int) -> Path:
    """File of a frame."""
    return folder / f"episode_{frame:07d}.npz"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, path)


def write_frames(folder: Path, first: int, episode: Episode) -> None:
    """Writes an episode's frames, the first of them as number `first`. Raises ConfigError for one without images."""
    if episode.rgb_static is None or episode.rgb_gripper is None:
        raise ConfigError("the episode has no images; record it in an environment with cameras=True")
    for step in range(episode.steps):
        content = io.BytesIO()
        np.savez_compressed(
            content,
            actions=episode.actions[step],
            rel_actions=episode.rel_actions[step].astype(np.float64),
            robot_obs=episode.robot_obs[step],
            scene_obs=episode.scene_obs[step],
            rgb_static=episode.rgb_static[step],
            rgb_gripper=episode.rgb_gripper[step],
            executed=episode.executed[step].astype(np.float64),
            disturbed=episode.disturbed[step],
        )
        write_whole(frame_path(folder, first + step), content.getvalue())


def write_index(folder: Path, scene: str, annotations: Sequence[Annotation], statistics: Statistics) -> None:
    """Writes the index files of a dataset of one scene whose frames are there; each annotation is one recording."""
    bounds = np.array([(item.start, item.end - 1) for item in annotations])
    language = {
        "language": {
            "ann": [item.instruction for item in annotations],
            "task": [item.task for item in annotations],
            "emb": np.zeros((len(annotations), *_EMBEDDING_SHAPE), np.float32),
        },
        "info": {"indx": [(item.start, item.end) for item in annotations], "episodes": []},
    }
    scenes = {f"calvin_scene_{scene}": [int(bounds[0, 0]), int(bounds[-1, 1])]}
    for path, value in (
        (folder / "ep_start_end_ids.npy", bounds),
        (folder / _ANNOTATIONS, language),
        (folder / "scene_info.npy", scenes),
    ):
        content = io.BytesIO()
        np.save(content, np.asarray(value), allow_pickle=isinstance(value, dict))
        write_whole(path, content.getvalue())
    write_whole(folder / "statistics.yaml", statistics.text().encode())


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays and plain values, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED_NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain value")
        return super().find_class(module, name)


def read_dictionary(path: Path) -> dict[str, Any]:
    """Reads a dictionary that numpy has pickled into a .npy file, without running any code of the file.

    Raises:
        ConfigError: if the file is missing, damaged, or holds anything but plain values and arrays.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            if shape != () or not dtype.hasobject:
                raise ConfigError(f"{path} holds an array of shape {shape}; it must hold one dictionary")
            value = _PlainUnpickler(file).load().item()
    except (OSError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path} can't be read as a dictionary: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}; it must hold one dictionary")
    return value


class CalvinDataset:
    """Reads a folder in CALVIN's layout (`training/` or `validation/` of a dataset, or what `deer collect` wrote)."""

    def __init__(self, folder: Path) -> None:
        """Reads the index files. Raises ConfigError if one is missing or damaged."""
        self.folder = Path(folder)
        bounds = self.folder / "ep_start_end_ids.npy"
        try:
            self.recordings = [(int(first), int(last)) for first, last in np.load(bounds, allow_pickle=False)]
            """First and last frame of each recording, both inclusive."""
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.folder} is not a dataset in CALVIN's layout: {error}") from error
        entries = read_dictionary(self.folder / _ANNOTATIONS)
        try:
            language, windows = entries["language"], entries["info"]["indx"]
            self.annotations = [
                Annotation(str(text), str(task), int(start), int(end))
                for text, task, (start, end) in zip(language["ann"], language["task"], windows, strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.folder / _ANNOTATIONS} lacks the layout's entries: {error!r}") from error

    def frame(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a frame. Raises ConfigError if it is missing or damaged."""
        path = frame_path(self.folder, number)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(f"{path} can't be read: {error}") from error
        missing = [name for name in _FRAME_KEYS if name not in found]
        if missing:
            raise ConfigError(f"{path} lacks {missing}; every frame needs {list(_FRAME_KEYS)}")
        return found

    def frames(self, annotation: Annotation) -> Iterator[dict[str, np.ndarray]]:
        """The frames of an annotation, in order."""
        return (self.frame(number) for number in range(annotation.start, annotation.end))
