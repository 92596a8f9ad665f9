"""Recorded trajectories of an official environment: actions, and what it observed and reported as solved.

A recording is an .npz file with

- `scene_name`: letter of the scene;
- `initial`: JSON; a symbolic state of the evaluation (its start is taken), or {"robot_obs": [15], "scene_obs": [24]};
- `actions` (T, 7): relative actions;
- `robot_obs` (T + 1, 15), `scene_obs` (T + 1, 24): after the reset and after each step;
- `solved` (T,): the tasks that are solved after each step, joined by '|';
- `subtasks`: JSON list of [task, first step, last step (exclusive), solved]; tasks are judged against the state at the
  first step of their subtask, or, where the list is empty, against the state after the reset;
- `rgb_static`, `rgb_gripper` (N, rows, columns, 3) uint8 at the steps `rgb_step` (N,).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ACTION_SIZE, PROPRIOCEPTION_SIZE
from deer_sim.calvin.sequences import start_state
from deer_sim.engine.environment import SCENE_OBS_SIZE
from deer_sim.tasks import TASKS

_ARRAYS = ("actions", "robot_obs", "scene_obs", "solved", "rgb_static", "rgb_gripper", "rgb_step")
_TEXTS = ("scene_name", "initial", "subtasks")


@dataclass(frozen=True)
class Recording:
    """A trajectory of T steps; see the module for the arrays.

    Attributes:
        scene: letter of the scene.
        robot_start, scene_start: (15,) and (24,), the state that the reset was given.
        solved: (T,) sets of tasks.
        judged_from: (T,) number of the observation that each set is judged against.
    """

    scene: str
    robot_start: np.ndarray
    scene_start: np.ndarray
    actions: np.ndarray
    robot_obs: np.ndarray
    scene_obs: np.ndarray
    solved: tuple[frozenset[str], ...]
    judged_from: tuple[int, ...]
    rgb_static: np.ndarray
    rgb_gripper: np.ndarray
    rgb_step: np.ndarray

    def __post_init__(self) -> None:
        steps = len(self.actions)
        shapes = {
            "actions": (steps, ACTION_SIZE),
            "robot_obs": (steps + 1, PROPRIOCEPTION_SIZE),
            "scene_obs": (steps + 1, SCENE_OBS_SIZE),
            "robot_start": (PROPRIOCEPTION_SIZE,),
            "scene_start": (SCENE_OBS_SIZE,),
        }
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape or not np.isfinite(values).all():
                raise ConfigError(f"{name} is {values.shape}, or not finite; finite numbers {shape} are needed")
        if len(self.solved) != steps or len(self.judged_from) != steps:
            raise ConfigError(f"solved has {len(self.solved)} entries; one for each of the {steps} actions is needed")
        unknown = frozenset().union(*self.solved) - set(TASKS)
        if unknown:
            raise ConfigError(f"solved names unknown tasks {sorted(unknown)}; allowed: {', '.join(TASKS)}")
        if not np.isin(self.actions[:, 6], (-1.0, 1.0)).all():
            raise ConfigError("the gripper's actions are not all -1 or 1, which the official environment insists on")
        pictures = len(self.rgb_step)
        for name in ("rgb_static", "rgb_gripper"):
            values = getattr(self, name)
            if values.shape[:1] != (pictures,) or values.ndim != 4 or values.dtype != np.uint8:
                raise ConfigError(f"{name} is {values.dtype} {values.shape}; {pictures} uint8 pictures are needed")
        if pictures and not (self.rgb_step.min() >= 0 and self.rgb_step.max() <= steps):
            raise ConfigError(f"rgb_step names steps beyond the recording's 0 to {steps}")


def read_recording(path: Path) -> Recording:
    """Reads a recording.

    Raises:
        ConfigError: if the file is missing, damaged, or not of that form.
    """
    try:
        with np.load(path) as file:
            lacking = sorted({*_ARRAYS, *_TEXTS} - set(file.files))
            if lacking:
                raise ConfigError(f"{path} is no recording of a trajectory: it lacks {', '.join(lacking)}")
            values = {name: file[name] for name in _ARRAYS}
            texts = {name: str(file[name]) for name in _TEXTS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"can't read the recording {path}: {error}") from error
    try:
        robot_start, scene_start = _start(json.loads(texts["initial"]))
        return Recording(
            scene=texts["scene_name"],
            robot_start=robot_start,
            scene_start=scene_start,
            actions=np.asarray(values["actions"], np.float64),
            robot_obs=np.asarray(values["robot_obs"], np.float64),
            scene_obs=np.asarray(values["scene_obs"], np.float64),
            solved=tuple(frozenset(filter(None, str(names).split("|"))) for names in values["solved"]),
            judged_from=_judged_from(json.loads(texts["subtasks"]), len(values["actions"])),
            rgb_static=values["rgb_static"],
            rgb_gripper=values["rgb_gripper"],
            rgb_step=values["rgb_step"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"the recording {path} is malformed: {error!r}") from error
    except ConfigError as error:
        raise ConfigError(f"the recording {path} is malformed: {error}") from error


def _start(initial: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The state that the reset was given."""
    if "robot_obs" in initial:
        return np.array(initial["robot_obs"], np.float64), np.array(initial["scene_obs"], np.float64)
    return start_state(initial)


def _judged_from(subtasks: list[list[Any]], steps: int) -> tuple[int, ...]:
    """The first step of the subtask that each step belongs to."""
    firsts = sorted(int(first) for _, first, _, _ in subtasks)
    return tuple(max((first for first in firsts if first <= step), default=0) for step in range(steps))


def write_recording(path: Path, recording: Recording) -> None:
    """Writes a recording, judged from its start, in a form that `read_recording` reads."""
    initial = {"robot_obs": recording.robot_start.tolist(), "scene_obs": recording.scene_start.tolist()}
    np.savez_compressed(
        path,
        scene_name=recording.scene,
        initial=json.dumps(initial),
        subtasks="[]",
        actions=recording.actions,
        robot_obs=recording.robot_obs,
        scene_obs=recording.scene_obs,
        solved=np.array(["|".join(sorted(names)) for names in recording.solved]),
        rgb_static=recording.rgb_static,
        rgb_gripper=recording.rgb_gripper,
        rgb_step=recording.rgb_step,
    )
