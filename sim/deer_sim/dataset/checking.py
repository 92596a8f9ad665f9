"""Reads everything of a dataset in CALVIN's layout and tells what is there and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError, listed
from deer_sim.dataset.layout import (
    EMBEDDINGS,
    IMAGES,
    LANGUAGE,
    LENGTHS,
    OTHERS,
    SETTINGS,
    STATISTICS,
    UNKNOWABLE,
    VECTORS,
    frame_path,
)
from deer_sim.dataset.pickles import read_dictionary
from deer_sim.dataset.reading import CalvinDataset, read_frame
from deer_sim.workers import worker_pool

BLOCK = 256
"""Frames that a worker reads at a time."""


@dataclass
class SplitReport:
    """What a split holds, and every problem.

    Attributes:
        folder: of the split.
        summary: lines that describe it.
        problems: one line each: file, what is wrong, remedy.
        damaged: numbers of the frames that are missing or damaged.
    """

    folder: Path
    summary: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


@dataclass
class _Seen:
    """What some frames hold: counts of kinds of content, frames by image size, faults by frame."""

    kinds: Counter[str] = field(default_factory=Counter)
    sizes: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)

    def add(self, other: _Seen) -> None:
        self.kinds += other.kinds
        self.faults |= other.faults
        for key, numbers in other.sizes.items():
            self.sizes.setdefault(key, []).extend(numbers)


def check_split(folder: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> SplitReport:
    """Reads all files of a split.

    Args:
        folder: of the split.
        workers: processes that read frames.
        progress: called now and then with the frames read so far and all frames.
    """
    report = SplitReport(Path(folder))
    try:
        dataset = CalvinDataset(folder)
    except ConfigError as error:
        report.problems.append(str(error))
        return report
    numbers = dataset.numbers()
    seen = _Seen()
    for part in _read(dataset.folder, numbers, workers):
        seen.add(part)
        if progress:
            progress(seen.kinds["frames"] + len(seen.faults), len(numbers))
    report.problems += _index_problems(dataset)
    _judge_sizes(dataset.folder, seen)
    report.problems += [seen.faults[number] for number in sorted(seen.faults)]
    report.damaged = sorted(seen.faults)
    report.summary = list(_summary(dataset, numbers, seen))
    return report


def frame_ranges(numbers: Sequence[int]) -> str:
    """Frame numbers in ascending order, in a few words: '3, 7-9'."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def _read(folder: Path, numbers: Sequence[int], workers: int) -> Iterator[_Seen]:
    blocks = [numbers[first : first + BLOCK] for first in range(0, len(numbers), BLOCK)]
    if workers == 1:
        yield from (_read_block(folder, block) for block in blocks)
        return
    with worker_pool(workers) as pool:
        for future in as_completed([pool.submit(_read_block, folder, block) for block in blocks]):
            yield future.result()


def _read_block(folder: Path, numbers: Sequence[int]) -> _Seen:
    seen = _Seen()
    for number in numbers:
        try:
            arrays = read_frame(frame_path(folder, number))
        except ConfigError as error:
            seen.faults[number] = str(error)
            continue
        seen.kinds.update(("frames", f"dtype {arrays['robot_obs'].dtype}"))
        seen.kinds.update(f"with {name}" for name in OTHERS if name in arrays)
        seen.kinds["closed 0"] += int(arrays["actions"][6] == 0.0 or arrays["rel_actions"][6] == 0.0)
        seen.kinds["unknown"] += int(np.isnan(arrays[UNKNOWABLE]).all())
        for name in IMAGES:
            seen.sizes.setdefault((name, len(arrays[name])), []).append(number)
    return seen


def _judge_sizes(folder: Path, seen: _Seen) -> None:
    """A frame whose image has another size than most is damaged: its window can't be stacked."""
    for name in IMAGES:
        by_size = {size: numbers for (image, size), numbers in seen.sizes.items() if image == name}
        usual = max(by_size, key=lambda size: len(by_size[size]), default=0)
        for size, numbers in by_size.items():
            for number in numbers if size != usual else ():
                seen.faults.setdefault(
                    number,
                    f"{frame_path(folder, number)} {name} is {size} x {size}, where most frames have "
                    f"{usual} x {usual}; extract it from the downloaded archive again",
                )


def _index_problems(dataset: CalvinDataset) -> Iterator[str]:
    folder = dataset.folder
    spans = sorted(dataset.recordings)
    for (first, last), (after, _) in pairwise(spans):
        if after <= last:
            yield f"{folder}: the recordings {first}-{last} and {after}- overlap; download the index files again"
    for item in dataset.unrecorded():
        yield (
            f"{folder}: the annotation {item.instruction!r} is about frames {item.start}-{item.end - 1}, which "
            f"no single recording holds; download {LANGUAGE} and ep_start_end_ids.npy of the same split again"
        )
    outside = [f"{first}-{last}" for first, last in spans if dataset.scenes and dataset.scene_of(first) is None]
    if outside:
        yield f"{folder}: scene_info.npy names no scene for the recordings {listed(outside)}; download it again"
    for check, name in (
        (_lengths_problem, Path(LENGTHS)),
        (_statistics_problem, Path(STATISTICS)),
        (_embeddings_problem, Path(LANGUAGE) / EMBEDDINGS),
        (_settings_problem, SETTINGS),
    ):
        if (folder / name).exists():
            try:
                problem = check(dataset, folder / name)
            # These files come from anywhere and may hold anything.
            except Exception as error:
                problem = f"can't be read: {error}"
            if problem:
                yield f"{folder / name} {problem}; download this file again"


def _lengths_problem(dataset: CalvinDataset, path: Path) -> str:
    lengths = np.load(path, allow_pickle=False).tolist()
    right = [last - first + 1 for first, last in dataset.recordings]
    return "" if lengths == right else f"has {len(lengths)} lengths that are not those of the {len(right)} recordings"


def _statistics_problem(dataset: CalvinDataset, path: Path) -> str:
    import yaml

    entries = yaml.safe_load(path.read_text())
    sizes = {
        (name, key): (len(transform[key]), VECTORS[name])
        for name in ("robot_obs", "scene_obs")
        for transform in entries[name]
        for key in ("mean", "std")
    }
    sizes |= {(name, ""): (len(entries[name]), VECTORS["actions"]) for name in ("act_max_bound", "act_min_bound")}
    wrong = [" ".join(place).strip() for place, (found, right) in sizes.items() if found != right]
    return f"has the wrong number of values for {', '.join(wrong)}" if wrong else ""


def _embeddings_problem(dataset: CalvinDataset, path: Path) -> str:
    entries = read_dictionary(path)
    wrong = [str(task) for task, entry in entries.items() if not {"emb", "ann"} <= set(entry)]
    return f"lacks emb or ann for {listed(wrong)}" if wrong else ""


def _settings_problem(dataset: CalvinDataset, path: Path) -> str:
    import yaml

    if yaml.safe_load(path.read_text())["robot"].get("use_nullspace") is True:
        return ""
    return "lacks robot.use_nullspace: true, as those from before 7 February 2022 do; its simulator moves otherwise"


def _summary(dataset: CalvinDataset, numbers: Sequence[int], seen: _Seen) -> Iterator[str]:
    kinds, annotations = seen.kinds, dataset.annotations
    yield f"{len(numbers)} frames in {len(dataset.recordings)} recordings"
    if dataset.scenes:
        yield "scenes: " + ", ".join(f"{name} {first}-{last}" for name, (first, last) in dataset.scenes.items())
    lengths = [item.end - item.start for item in annotations] or [0]
    annotated = len({number for item in annotations for number in range(item.start, item.end)})
    tasks, sentences = {item.task for item in annotations}, {item.instruction for item in annotations}
    yield (
        f"{len(annotations)} annotations of {min(lengths)} to {max(lengths)} frames, {annotated} different frames in "
        f"all; {len(tasks)} tasks, {len(sentences)} sentences"
    )
    yield "vectors: " + ", ".join(
        f"{kind.removeprefix('dtype ')} in {count} frames" for kind, count in kinds.items() if kind.startswith("dtype")
    )
    yield "images: " + ", ".join(f"{name} {size} x {size}" for name, size in seen.sizes)
    others = [kind.removeprefix("with ") for kind in kinds if kind.startswith("with ")]
    if others:
        yield f"also: {', '.join(others)}"
    if kinds["closed 0"]:
        yield f"{kinds['closed 0']} frames hold the older 0 for a closed gripper; it is read as -1"
    if kinds["unknown"]:
        yield f"{kinds['unknown']} frames do not know the state of the scene ({UNKNOWABLE} is NaN)"
    listing = {path.name for path in dataset.folder.glob("episode_*.npz")}
    beside = len(listing) - len(listing & {frame_path(dataset.folder, number).name for number in numbers})
    if beside:
        yield f"{beside} files of frames belong to no recording and are not read"
