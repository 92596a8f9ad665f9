"""Names and shapes of CALVIN's dataset layout, and what is wrong with the arrays of a frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError

SPLITS = ("training", "validation")
BOUNDS = "ep_start_end_ids.npy"
LENGTHS = "ep_lens.npy"
SCENES = "scene_info.npy"
STATISTICS = "statistics.yaml"
LANGUAGE = "lang_annotations"
ANNOTATIONS = "auto_lang_ann.npy"
EMBEDDINGS = "embeddings.npy"
SETTINGS = Path(".hydra") / "merged_config.yaml"
VECTORS = {"actions": 7, "rel_actions": 7, "robot_obs": 15, "scene_obs": 24}
"""Every frame's vectors; float32 or float64."""
UNKNOWABLE = "scene_obs"
"""This one is all NaN in frames that come from data without a state of the scene."""
IMAGES = ("rgb_static", "rgb_gripper")
"""Every frame's images: (n, n, 3) uint8; n is 200 and 84 in CALVIN."""
OTHERS = {
    "rgb_tactile": ((160, 120, 6), np.uint8),
    "depth_static": ((200, 200), np.floating),
    "depth_gripper": ((84, 84), np.floating),
    "depth_tactile": ((160, 120, 2), np.floating),
}
"""What CALVIN's frames hold beside, and others may leave out."""
GRIPPER = {"actions": 6, "rel_actions": 6, "robot_obs": 14}
"""Where the gripper command stands: +1 open, -1 closed, in older files 0 for closed."""


@dataclass(frozen=True)
class Annotation:
    """One instruction being followed: its wording, task, and frames `start` to `end` - 1."""

    instruction: str
    task: str
    start: int
    end: int


def frame_path(folder: Path, frame: int) -> Path:
    """File of a frame."""
    return folder / f"episode_{frame:07d}.npz"


def split_folders(path: Path) -> list[Path]:
    """The folders below `path` that hold frames: itself, or its training and validation splits.

    Raises:
        ConfigError: if there is no split.
    """
    path = Path(path)
    if (path / BOUNDS).exists():
        return [path]
    found = [path / name for name in SPLITS if (path / name).is_dir()]
    if not found:
        raise ConfigError(
            f"{path} is not a dataset in CALVIN's layout: it has neither {BOUNDS} nor a folder "
            f"{' or '.join(SPLITS)}; name the folder of a dataset, such as task_D_D, or of one of its splits"
        )
    return found


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, path)


def frame_faults(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What is wrong with the arrays of a frame."""
    missing = [name for name in (*VECTORS, *IMAGES) if name not in arrays]
    if missing:
        yield f"lacks {', '.join(missing)}"
    for name, size in VECTORS.items():
        if name in arrays:
            yield from _vector_faults(name, arrays[name], size)
    for name in IMAGES:
        if name in arrays:
            image = arrays[name]
            shape = image.shape
            if image.dtype != np.uint8 or len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
                yield f"{name} is {shape} {image.dtype}; it must be (n, n, 3) uint8"
    for name, (shape, kind) in OTHERS.items():
        if name in arrays and (arrays[name].shape != shape or not np.issubdtype(arrays[name].dtype, kind)):
            yield f"{name} is {arrays[name].shape} {arrays[name].dtype}; it must be {shape} {kind.__name__}"


def _vector_faults(name: str, vector: np.ndarray, size: int) -> Iterator[str]:
    if vector.shape != (size,) or vector.dtype not in (np.float32, np.float64):
        yield f"{name} is {vector.shape} {vector.dtype}; it must be ({size},) float32 or float64"
    elif not np.isfinite(vector).all() and not (name == UNKNOWABLE and np.isnan(vector).all()):
        yield f"{name} has values that are not finite"
    elif name.endswith("actions") and vector[GRIPPER[name]] not in (-1.0, 0.0, 1.0):
        yield f"{name} has gripper command {vector[GRIPPER[name]]:g}; it must be 1 (open) or -1 (closed; older files 0)"
