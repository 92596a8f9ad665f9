"""`deer dataset from-recording`: writes the demonstrations of recordings in CALVIN's layout."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from deer_ros.recording.demonstrations import Demonstration
    from deer_ros.recording.reading import Recording
    from deer_ros.recording.runs import Runs
    from deer_sim.dataset import Annotation, Statistics


@dataclass
class _Made:
    """What has been written so far; frames are numbered on, with a number left out between demonstrations."""

    folder: Path
    recordings: list[tuple[int, int]] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    statistics: Statistics | None = None
    frames: int = 0

    @property
    def next_free(self) -> int:
        """Number of the next demonstration's first frame."""
        return self.recordings[-1][1] + 2 if self.recordings else 0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    from deer_sim.dataset.layout import SPLITS

    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="recordings (.mcap or folder of a bag)")
    parser.add_argument(
        "--actions",
        choices=("policy", "measured"),
        default="policy",
        help="what was done: the policy's answers, or the motion of the tool, whoever moved it",
    )
    parser.add_argument("--all", action="store_true", help="also what did not end DONE")
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="part of the dataset to write")


def run(arguments: argparse.Namespace) -> int:
    """Writes the split and tells what went into it; 1 if nothing did."""
    from deer_policies.errors import ConfigError
    from deer_ros.recording.demonstrations import demonstrations
    from deer_ros.recording.reading import Recording
    from deer_ros.recording.runs import read_runs
    from deer_sim.dataset import write_index

    out = arguments.out / arguments.split
    if out.exists():
        raise ConfigError(f"{out} is there already; name a new folder")
    made = _Made(out.with_name(f".{out.name}.partial"))
    shutil.rmtree(made.folder, ignore_errors=True)
    for path in arguments.files:
        recording = Recording(path)
        runs = read_runs(recording)
        if recording.cut_short:
            print(recording.cut_short)
        found, left_out = demonstrations(runs, arguments.actions, arguments.all)
        for text in left_out:
            print(f"{path}: left out {text}")
        _write(recording, runs, found, made)
        for item in found:
            print(f"{path}: {_described(item)}")
    if made.statistics is None:
        print("nothing was written")
        return 1
    write_index(made.folder, made.recordings, made.annotations, {}, made.statistics)
    os.replace(made.folder, out)
    print(f"{len(made.annotations)} annotations, {made.frames} frames in {out}")
    return 0


def _write(recording: Recording, runs: Runs, found: list[Demonstration], made: _Made) -> None:
    """Writes the frames of a recording's demonstrations; their images come in one pass."""
    from deer_policies.errors import ConfigError
    from deer_ros.recording.images import find_images
    from deer_ros.robot_frame import GRIPPER, STATIC, FrameParts
    from deer_sim.dataset import write_frame
    from deer_sim.dataset.layout import frame_faults

    frames = [(number, arrays) for item in found for number, arrays in _numbered(item, made)]
    wanted = [image for item in found for image in item.images]
    parts = FrameParts(runs.arm)
    for place, static, gripper in find_images(recording, runs.namespace, wanted):
        number, arrays = frames[place]
        arrays["rgb_static"] = np.ascontiguousarray(parts.value(STATIC, static)[1])
        arrays["rgb_gripper"] = np.ascontiguousarray(parts.value(GRIPPER, gripper)[1])
        faults = list(frame_faults(arrays))
        if faults:
            raise ConfigError(f"{recording.path}, frame {wanted[place].static_ns / 1e9:.6f} s: {'; '.join(faults)}")
        write_frame(made.folder, number, arrays)
        made.frames += 1


def _numbered(item: Demonstration, made: _Made) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Numbers the frames of a demonstration, notes it in the index, and gives the vectors of each frame."""
    from deer_sim.dataset import Annotation, Statistics
    from deer_sim.dataset.completing import absolute_actions, task_of, unknown_scene

    steps, first = len(item.images), made.next_free
    relative = item.rel_actions.astype(np.float64)
    actions, scene = absolute_actions(item.robot_obs, relative), unknown_scene(steps)
    sums = Statistics.of(item.robot_obs, scene, actions)
    made.statistics = sums if made.statistics is None else made.statistics + sums
    made.recordings.append((first, first + steps - 1))
    made.annotations.append(Annotation(item.instruction, item.task or task_of(item.instruction), first, first + steps))
    vectors = {"actions": actions, "rel_actions": relative, "robot_obs": item.robot_obs, "scene_obs": scene}
    return [(first + step, {name: values[step] for name, values in vectors.items()}) for step in range(steps)]


def _described(item: Demonstration) -> str:
    notes = [
        f"{count} {what}"
        for count, what in (
            (item.clipped, "faster than an action can tell and clipped"),
            (item.gaps, "after a longer gap than a control period"),
        )
        if count
    ]
    return f"{item.instruction!r}, {len(item.images)} frames" + (f" ({'; '.join(notes)})" if notes else "")
