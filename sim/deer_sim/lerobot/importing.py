"""Imports a dataset in LeRobot's format as a split in CALVIN's layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.dataset import Annotation, Statistics, write_frame, write_index
from deer_sim.dataset.completing import absolute_actions, task_of, unknown_scene
from deer_sim.dataset.layout import UNKNOWABLE, VECTORS, frame_faults
from deer_sim.lerobot.format import ACTION, CAMERAS, FRAME, STATE, TASK_INDEX, feature_name
from deer_sim.lerobot.reading import Entry, LeRobotFolder


@dataclass(frozen=True)
class Names:
    """Which features hold what; the defaults are those of our own export.

    Attributes:
        static, gripper: cameras.
        state: CALVIN's robot_obs (15).
        action: CALVIN's relative action (7).
    """

    static: str = CAMERAS["rgb_static"]
    gripper: str = CAMERAS["rgb_gripper"]
    state: str = STATE
    action: str = ACTION


@dataclass
class _Made:
    """What has been written so far."""

    states: dict[int, bytes] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)
    scenes: dict[str, tuple[int, int]] = field(default_factory=dict)
    statistics: Statistics | None = None
    next_free: int = 0


def import_dataset(
    source: Path, out: Path, names: Names | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[int, int]:
    """Writes a split whose annotations are the episodes; frames that several of our own episodes share are one again.

    Where the data do not say so, frames are numbered anew, absolute actions are the pose of the step after, the state
    of the scene is NaN, and the task is the one that has the instruction among its wordings, or else is named after it.

    Args:
        source: folder of a dataset in LeRobot's format.
        out: new folder of the split; it appears under this name once it is complete.
        names: of the features.
        progress: called after each episode with the episodes done and all.

    Returns:
        Numbers of annotations and of frames.

    Raises:
        ConfigError: if the source is damaged or not of CALVIN's shapes and units, or `out` is there already.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already; name a new folder")
    names = names or Names()
    folder = LeRobotFolder(source)
    for name, size in ((names.state, VECTORS["robot_obs"]), (names.action, VECTORS["rel_actions"])):
        folder.require(name, size)
    for name in (names.static, names.gripper):
        folder.require(name)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    made = _Made()
    for count, entry in enumerate(folder.entries, 1):
        _import_episode(folder, entry, names, partial, made)
        if progress:
            progress(count, len(folder.entries))
    folder.close()
    if made.statistics is None:
        raise ConfigError(f"{source} has no episode")
    write_index(partial, _runs(sorted(made.states)), made.annotations, made.scenes, made.statistics)
    os.replace(partial, out)
    return len(made.annotations), len(made.states)


def _import_episode(folder: LeRobotFolder, entry: Entry, names: Names, out: Path, made: _Made) -> None:
    arrays = _arrays(folder, entry, names)
    if FRAME in folder.features:
        numbers = folder.values(entry, FRAME)[:, 0].tolist()
    else:
        # A number is left out, so that each episode is a recording of its own.
        numbers = list(range(made.next_free, made.next_free + entry.length))
        made.next_free = numbers[-1] + 2
    fresh = []
    for step, number in enumerate(numbers):
        frame = {name: values[step] for name, values in arrays.items()}
        faults = list(frame_faults(frame))
        if faults:
            raise ConfigError(f"{entry.data}, episode {entry.index}, step {step}: {'; '.join(faults)}")
        state = frame["robot_obs"].tobytes()
        if number not in made.states:
            fresh.append(step)
            write_frame(out, number, frame)
        elif made.states[number] != state:
            raise ConfigError(
                f"{entry.data}: {FRAME} {number} of episode {entry.index} was another frame in an earlier episode; "
                "these are several datasets in one, import them apart"
            )
        made.states[number] = state
    if fresh:
        sums = Statistics.of(*(arrays[name][fresh] for name in ("robot_obs", "scene_obs", "actions")))
        made.statistics = sums if made.statistics is None else made.statistics + sums
    _annotate(folder, entry, numbers, made)


def _arrays(folder: LeRobotFolder, entry: Entry, names: Names) -> dict[str, np.ndarray]:
    """The frames' arrays under their names in CALVIN's layout, (steps, ...) each."""
    known = {"robot_obs": names.state, "rel_actions": names.action}
    arrays = {name: folder.values(entry, feature) for name, feature in known.items()}
    beyond = np.abs(arrays["rel_actions"]).max()
    if beyond > 1.0:
        raise ConfigError(
            f"{entry.data}: feature {names.action!r} of episode {entry.index} reaches {beyond:g}; CALVIN's relative "
            "actions are within -1 and 1 (1 is 0.02 m and 0.05 rad): convert it first, or name another feature"
        )
    for feature, kind in folder.features.items():
        name = feature.removeprefix("calvin.")
        if name != feature and feature != FRAME:
            values = folder.values(entry, feature)
            arrays[name] = values[:, 0] if tuple(kind["shape"]) == (1,) else values
    if feature_name("scene_obs") not in folder.features:
        arrays[UNKNOWABLE] = unknown_scene(entry.length)
    if feature_name("actions") not in folder.features:
        arrays["actions"] = absolute_actions(arrays["robot_obs"], arrays["rel_actions"])
    for name, feature in (("rgb_static", names.static), ("rgb_gripper", names.gripper)):
        arrays[name] = np.stack(folder.images(entry, feature))
    return arrays


def _annotate(folder: LeRobotFolder, entry: Entry, numbers: list[int], made: _Made) -> None:
    """One annotation for each stretch of the episode with the same instruction."""
    indices = folder.values(entry, TASK_INDEX)[:, 0].tolist()
    for index, steps in groupby(range(entry.length), key=lambda step: indices[step]):
        stretch = [numbers[step] for step in steps]
        if stretch != list(range(stretch[0], stretch[0] + len(stretch))):
            raise ConfigError(f"{entry.data}: {FRAME} of episode {entry.index} leaves numbers out; export it again")
        if index not in folder.tasks:
            raise ConfigError(f"{entry.data}: episode {entry.index} has task {index}, which {folder.folder}/meta lacks")
        text = folder.tasks[index]
        task = entry.extras.get("calvin/task") or task_of(text)
        made.annotations.append(Annotation(text, task, stretch[0], stretch[-1] + 1))
    scene = entry.extras.get("calvin/scene")
    if scene:
        first, last = made.scenes.get(scene, (min(numbers), max(numbers)))
        made.scenes[scene] = (min(first, *numbers), max(last, *numbers))


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    firsts = [number for place, number in enumerate(numbers) if not place or number != numbers[place - 1] + 1]
    lasts = [number for place, number in enumerate(numbers) if numbers[place + 1 : place + 2] != [number + 1]]
    return list(zip(firsts, lasts, strict=True))
