"""Episodes from a folder in CALVIN's layout, packed once into a cache of the run at the policy's own image size."""

from __future__ import annotations

import hashlib
import logging
import time
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.deer.config import PreprocessConfig
from deer_policies.errors import ConfigError, listed
from deer_policies.training.episodes import Episode
from deer_policies.training.frame_store import FrameStore
from deer_sim.chunks import chunks
from deer_sim.dataset import Annotation, CalvinDataset, frame_path, split_folders
from deer_sim.workers import worker_pool

logger = logging.getLogger(__name__)

_REPORT_S = 10.0
_VIEWS = 2


def calvin_split(path: Path, name: str) -> Path:
    """The split `name` of a dataset; a folder that is itself a split is 'training'. Raises ConfigError if absent."""
    folders = {folder.name if folder != Path(path) else "training": folder for folder in split_folders(path)}
    if name not in folders:
        raise ConfigError(f"{path} has no split {name!r}, only {listed(sorted(folders))}; name a whole dataset")
    return folders[name]


class CalvinEpisodes:
    """The annotated windows of a split whose task is one of those given."""

    def __init__(self, folder: Path, tasks: tuple[str, ...], preprocess: PreprocessConfig, cache: Path) -> None:
        """Args:
        folder: of the split.
        tasks: to train on.
        preprocess: of the policy that will be trained.
        cache: folder in which packed frames are kept; those of other data and sizes lie there side by side.

        Raises:
            ConfigError: if the index is damaged or no annotation is of these tasks.
        """
        self._dataset = CalvinDataset(folder)
        unrecorded = self._dataset.unrecorded()
        if unrecorded:
            raise ConfigError(
                f"{folder} annotates frames that are not recorded ({unrecorded[0]}); `deer dataset check` lists all"
            )
        self._annotations = [item for item in self._dataset.annotations if item.task in tasks]
        if not self._annotations:
            found = sorted({item.task for item in self._dataset.annotations})
            raise ConfigError(f"{folder} has no annotation of the tasks {listed(tasks)}; it has {listed(found)}")
        self._numbers = sorted({number for item in self._annotations for number in range(item.start, item.end)})
        self._preprocess = preprocess
        size = preprocess.image_size
        key = _key(folder, self._numbers, preprocess)
        self._store = FrameStore(cache / key, len(self._numbers), (_VIEWS, 3, size, size))

    @property
    def sentences(self) -> list[str]:
        """All instructions."""
        return sorted({item.instruction for item in self._annotations})

    def pack(self, workers: int) -> None:
        """Packs the frames that are not there yet. Raises ConfigError naming the file, if a frame is damaged."""
        self._store.create()
        missing = self._store.missing()
        if not missing:
            return
        began = reported = time.monotonic()
        with worker_pool(workers, _start_worker, (self._dataset.folder, self._preprocess, self._store)) as pool:
            blocks = [(block, self._numbers[block.start : block.stop]) for block in missing]
            for count, future in enumerate(as_completed([pool.submit(_pack, *block) for block in blocks]), 1):
                future.result()
                now = time.monotonic()
                if now - reported > _REPORT_S:
                    reported = now
                    left_s = (now - began) / count * (len(missing) - count)
                    logger.info("packing %s: %d/%d, %.0f s left", self._dataset.folder, count, len(missing), left_s)

    def load(self, horizon: int, most_per_task: int | None = None) -> list[Episode]:
        """The episodes, whose images are read when they are looked at.

        A policy that gives several actions at a time looks at every so many frames. It may begin with any of the first
        ones: each of these makes an episode of its own, so that every frame is looked at in one of them.

        Args:
            horizon: of the policy that will be trained.
            most_per_task: leaves out the annotations that go beyond so many of a task; None keeps all.
        """
        taken: dict[str, int] = {}
        place = {number: index for index, number in enumerate(self._numbers)}
        episodes = []
        for item in self._annotations:
            taken[item.task] = taken.get(item.task, 0) + 1
            if most_per_task is None or taken[item.task] <= most_per_task:
                first = place[item.start]
                last = first + item.end - item.start
                begins = range(first, min(first + horizon, last))
                episodes += [self._episode(range(begin, last), item, horizon) for begin in begins]
        return episodes

    def _episode(self, places: range, item: Annotation, horizon: int) -> Episode:
        images, robot, actions = self._store.read(places)
        labels, known = chunks(actions, actions, np.arange(0, len(places), horizon), horizon)
        looks = len(labels)
        return Episode(
            images=images[::horizon],
            proprioception=robot[::horizon],
            labels=labels,
            task=item.task,
            instructions=(item.instruction,),
            known=known,
            scene=np.zeros((looks, 0), np.float32),
            landmarks=np.zeros((looks, _VIEWS, 0, 3), np.float32),
            focus=np.zeros((looks, 0), np.float32),
        )


def _key(folder: Path, numbers: list[int], preprocess: PreprocessConfig) -> str:
    """Changes with the frames and with how they are seen; a frame is told by its file's size and time of change."""
    digest = hashlib.sha256(repr(preprocess).encode())
    for number in numbers:
        path = frame_path(folder, number)
        try:
            status = path.stat()
        except OSError as error:
            raise ConfigError(f"{path} is missing ({error}); `deer dataset check {folder}` lists all such") from error
        digest.update(f"{number} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


_worker: dict[str, Any] = {}


def _start_worker(folder: Path, preprocess: PreprocessConfig, store: FrameStore) -> None:
    import torch

    torch.set_num_threads(1)
    _worker.update(dataset=CalvinDataset(folder), preprocess=preprocess, store=store)


def _pack(block: range, numbers: list[int]) -> None:
    from deer_policies.deer.preprocess import stack_views

    frames = [_worker["dataset"].frame(number) for number in numbers]
    images = [stack_views(frame["rgb_static"], frame["rgb_gripper"], _worker["preprocess"]).numpy() for frame in frames]
    robot, labels = (np.stack([frame[name] for frame in frames]) for name in ("robot_obs", "rel_actions"))
    _worker["store"].write(block, np.stack(images), robot, labels)
