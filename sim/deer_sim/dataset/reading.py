"""Reads one split of a dataset in CALVIN's layout."""

from __future__ import annotations

import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.dataset.layout import (
    ANNOTATIONS,
    BOUNDS,
    GRIPPER,
    LANGUAGE,
    SCENES,
    Annotation,
    frame_faults,
    frame_path,
)
from deer_sim.dataset.pickles import read_dictionary


class CalvinDataset:
    """A split: `training/` or `validation/` of a dataset, or what `deer collect` wrote.

    Attributes:
        folder: of the split.
        recordings: first and last frame of each recording, both inclusive.
        annotations: the annotated windows.
        scenes: first and last frame of each scene; empty where the split does not say.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the index files. Raises ConfigError if one is missing or damaged."""
        self.folder = Path(folder)
        self.recordings = _recordings(self.folder / BOUNDS)
        # Datasets from before other language models were added hold the annotations beside the frames.
        places = [self.folder / LANGUAGE / ANNOTATIONS, self.folder / ANNOTATIONS]
        self.annotations = _annotations(next((path for path in places if path.exists()), places[0]))
        path = self.folder / SCENES
        self.scenes = _scenes(path) if path.exists() else {}

    def scene_of(self, frame: int) -> str | None:
        """CALVIN's name of the scene of a frame, such as 'calvin_scene_D'; None where the split does not say."""
        return next((name for name, (first, last) in self.scenes.items() if first <= frame <= last), None)

    def numbers(self) -> list[int]:
        """All frames of the recordings, in order, each once."""
        found: set[int] = set()
        for first, last in self.recordings:
            found.update(range(first, last + 1))
        return sorted(found)

    def unrecorded(self) -> list[Annotation]:
        """Annotations of frames that no single recording holds; their windows would cross a cut or lack frames."""
        spans = sorted(self.recordings)
        firsts = [first for first, _ in spans]
        found = []
        for item in self.annotations:
            place = bisect_right(firsts, item.start) - 1
            if place < 0 or item.end - 1 > spans[place][1]:
                found.append(item)
        return found

    def frame(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a frame; a closed gripper is -1 in all of them, also in files from when it was 0.

        Raises:
            ConfigError: if the file is missing, damaged, or not as the layout says; the message has the remedy.
        """
        found = read_frame(frame_path(self.folder, number))
        for name, place in GRIPPER.items():
            if found[name][place] == 0.0:
                found[name][place] = -1.0
        return found

    def frames(self, annotation: Annotation) -> Iterator[dict[str, np.ndarray]]:
        """The frames of an annotation, in order."""
        return (self.frame(number) for number in range(annotation.start, annotation.end))


def read_frame(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a frame's file as they are there. Raises ConfigError if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing; {_remedy(path)}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ConfigError(f"{path} can't be read: {error}; {_remedy(path)}") from error
    faults = list(frame_faults(found))
    if faults:
        raise ConfigError(f"{path} {'; '.join(faults)}; {_remedy(path)}")
    return found


def _remedy(path: Path) -> str:
    return (
        f"extract {path.parent.name}/{path.name} from the downloaded archive again; "
        f"`deer dataset check {path.parent}` lists all such frames"
    )


def _recordings(path: Path) -> list[tuple[int, int]]:
    try:
        bounds = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"{path.parent} is not a dataset in CALVIN's layout: {error}; name a folder with {BOUNDS}, or download "
            "that file again"
        ) from error
    if bounds.ndim != 2 or bounds.shape[1] != 2 or len(bounds) == 0 or not np.issubdtype(bounds.dtype, np.integer):
        raise ConfigError(
            f"{path} holds {bounds.shape} {bounds.dtype}; it must be (recordings, 2) integers: download it again"
        )
    wrong = bounds[(bounds[:, 0] > bounds[:, 1]) | (bounds[:, 0] < 0)]
    if len(wrong):
        raise ConfigError(f"{path} has the recording {wrong[0].tolist()}; it must be [first, last frame]")
    return [(int(first), int(last)) for first, last in bounds]


def _annotations(path: Path) -> list[Annotation]:
    entries = read_dictionary(path)
    try:
        texts, tasks = entries["language"]["ann"], entries["language"]["task"]
        windows = entries["info"]["indx"]
        counts = {"language.ann": len(texts), "language.task": len(tasks), "info.indx": len(windows)}
        if "emb" in entries["language"]:
            counts["language.emb"] = len(entries["language"]["emb"])
        if len(set(counts.values())) != 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ConfigError(f"{path} has lists of different lengths ({listed}); download this file again")
        found = [
            Annotation(str(text), str(task), int(start), int(end))
            for text, task, (start, end) in zip(texts, tasks, windows, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} lacks the layout's entries: {error!r}; download this file again") from error
    for item in found:
        if not 0 <= item.start < item.end:
            raise ConfigError(
                f"{path} annotates frames {item.start} to {item.end} (end exclusive), which are none; "
                "download this file again"
            )
    return found


def _scenes(path: Path) -> dict[str, tuple[int, int]]:
    entries: dict[str, Any] = read_dictionary(path)
    try:
        return {str(name): (int(first), int(last)) for name, (first, last) in entries.items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} must give the first and last frame of each scene: {error!r}") from error
