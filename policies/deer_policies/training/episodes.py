"""Recorded episodes as the trainer reads them: images at the policy's own size, labels, and wordings."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.training.wording_draws import drawn_wordings

_VALUES = ("proprioception", "labels", "known", "scene", "landmarks", "focus")
"""What a file holds beside task and images."""


@dataclass(frozen=True)
class Episode:
    """One instruction being followed.

    Attributes:
        images: (steps, views, 3, height, width) uint8, preprocessed by the policy's own preprocessing.
        proprioception: (steps, 15) float32.
        labels: (steps, horizon, 7) float32, the actions to imitate at each step.
        known: (steps, horizon) bool, which of them are labels; the others are fillings.
        task: name of the subtask, for balance and for reports.
        instructions: wordings that fit; training draws one of them for each window.
        scene: (steps, values) float32, what is to be read from the images beside the action; no values if that is not
            known.
        landmarks: (steps, views, landmarks, 3) float32, where things are in the images: column and row as a share of
            the picture, and 1 where it is in it; no landmarks if that is not known.
        focus: (steps, values) float32, what the instruction is about; no values if that is not known.
    """

    images: np.ndarray
    proprioception: np.ndarray
    labels: np.ndarray
    task: str
    instructions: tuple[str, ...]
    known: np.ndarray
    scene: np.ndarray
    landmarks: np.ndarray
    focus: np.ndarray

    def __post_init__(self) -> None:
        steps = len(self.images)
        if steps == 0 or self.images.ndim != 5 or self.images.dtype != np.uint8:
            raise ConfigError(
                f"episode images are {self.images.shape} {self.images.dtype}; need (steps, views, 3, h, w) uint8"
            )
        if self.proprioception.shape != (steps, 15) or self.labels.shape != (*self.known.shape, 7):
            raise ConfigError(
                f"{steps} images, proprioception {self.proprioception.shape}, labels {self.labels.shape}, known "
                f"{self.known.shape}: they must be (steps, 15), (steps, horizon, 7) and (steps, horizon)"
            )
        counts = [len(part) for part in (self.known, self.scene, self.landmarks, self.focus)]
        if counts != [steps] * len(counts):
            raise ConfigError(f"{steps} images and {counts} labels, scenes, landmarks and focuses: make them equal")
        if not self.instructions:
            raise ConfigError(f"episode of task {self.task!r} has no instruction; give at least one wording")


def save_episode(path: Path, episode: Episode) -> None:
    """Writes one .npz, complete or not at all, and its images in a .npy beside it, which can be read in parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {name: getattr(episode, name) for name in _VALUES}
    _write(path.with_suffix(".npy"), lambda file: np.save(file, episode.images))
    _write(path, lambda file: np.savez(file, task=np.array(episode.task), **values))


def _write(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        write(file)
    os.replace(partial, path)


def load_episode(path: Path, instructions: Mapping[str, tuple[str, ...]]) -> Episode:
    """Reads what `save_episode` wrote; the wordings come from `instructions` by task, so that they can change.

    The images stay on the disk until they are looked at.

    Raises:
        ConfigError: naming the file, if it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            task = str(arrays["task"])
            values = {name: arrays[name] for name in _VALUES}
        # Nobody writes, but PyTorch warns about arrays that can't be written to.
        images = np.load(path.with_suffix(".npy"), mmap_mode="r+", allow_pickle=False)
        return Episode(images=images, task=task, instructions=instructions[task], **values)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is not an episode file ({error}); delete it and collect again") from error


@dataclass(frozen=True)
class Windows:
    """The next `window` steps of each stream.

    Attributes:
        images: (batch, window, views, 3, height, width) uint8.
        proprioception: (batch, window, 15) float32.
        labels: (batch, window, horizon, 7) float32.
        weight: (batch, window, horizon) float32, 1 for a label, 0 for none and after an episode's end.
        scene: (batch, window, values) float32; see `Episode`.
        landmarks: (batch, window, views, landmarks, 3) float32; see `Episode`.
        focus: (batch, window, values) float32; see `Episode`.
        instructions: one text a stream, drawn anew for each window.
        starts: (batch,) bool, True where the recurrent state starts anew.
    """

    images: np.ndarray
    proprioception: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    scene: np.ndarray
    landmarks: np.ndarray
    focus: np.ndarray
    instructions: list[str]
    starts: np.ndarray


class EpisodeStreams:
    """Plays episodes side by side in consecutive windows, so that the recurrent state is trained as it will be used.

    The official training cuts windows anywhere and starts each from a zero state, but runs for hundreds of steps;
    `carry_state=False` does the same. Tasks are drawn evenly, but for those that `emphasis` gives more than one share,
    and within a task the episodes. Each window has a wording of its own, so that many are seen.
    """

    def __init__(
        self,
        episodes: Iterable[Episode],
        batch: int,
        window: int,
        rng: np.random.Generator,
        carry_state: bool = True,
        emphasis: Mapping[str, int] | None = None,
    ) -> None:
        self._episodes = list(episodes)
        self._of_task: dict[str, list[int]] = {}
        for index, episode in enumerate(self._episodes):
            self._of_task.setdefault(episode.task, []).append(index)
        if not self._episodes:
            raise ConfigError("there is no episode to train on; collect demonstrations first")
        self._shares = [task for task in self._of_task for _ in range((emphasis or {}).get(task, 1))]
        # Recordings of others don't tell the scene; what some of the episodes lack is left out for all.
        self._values = min(episode.scene.shape[1] for episode in self._episodes)
        self._landmarks = min(episode.landmarks.shape[2] for episode in self._episodes)
        self._focus = min(episode.focus.shape[1] for episode in self._episodes)
        self._window = window
        self._rng = rng
        self._carry_state = carry_state
        self._playing = [self._draw() for _ in range(batch)]
        self._position = [0] * batch

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return sum(len(episode.images) for episode in self._episodes)

    def state(self) -> dict[str, Any]:
        """Where the streams are, in plain values: with it, other streams over the same episodes go on exactly here."""
        rng = json.dumps(self._rng.bit_generator.state)
        return {"playing": list(self._playing), "position": list(self._position), "rng": rng}

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self._playing, self._position = list(state["playing"]), list(state["position"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _draw(self) -> int:
        indices = self._of_task[self._shares[self._rng.integers(len(self._shares))]]
        return indices[self._rng.integers(len(indices))]

    def _advance(self, stream: int) -> tuple[Episode, int]:
        """The stream's episode and the position of its next window."""
        if not self._carry_state:
            self._playing[stream] = self._draw()
            last = max(len(self._episodes[self._playing[stream]].images) - self._window, 0)
            self._position[stream] = int(self._rng.integers(last + 1))
        elif self._position[stream] >= len(self._episodes[self._playing[stream]].images):
            self._playing[stream], self._position[stream] = self._draw(), 0
        position = self._position[stream]
        self._position[stream] += self._window
        return self._episodes[self._playing[stream]], position

    def next(self) -> Windows:
        """The next window of every stream."""
        batch, window = len(self._playing), self._window
        first = self._episodes[0]
        images = np.zeros((batch, window, *first.images.shape[1:]), np.uint8)
        proprioception = np.zeros((batch, window, 15), np.float32)
        labels = np.zeros((batch, window, *first.labels.shape[1:]), np.float32)
        weight = np.zeros(labels.shape[:3], np.float32)
        scene = np.zeros((batch, window, self._values), np.float32)
        landmarks = np.zeros((batch, window, first.images.shape[1], self._landmarks, 3), np.float32)
        focus = np.zeros((batch, window, self._focus), np.float32)
        starts = np.zeros(batch, bool)
        played = []
        for stream in range(batch):
            episode, position = self._advance(stream)
            played.append(episode)
            part = slice(position, position + window)
            count = len(episode.images[part])
            images[stream, :count] = episode.images[part]
            proprioception[stream, :count] = episode.proprioception[part]
            labels[stream, :count] = episode.labels[part]
            weight[stream, :count] = episode.known[part]
            scene[stream, :count] = episode.scene[part, : self._values]
            landmarks[stream, :count] = episode.landmarks[part, :, : self._landmarks]
            focus[stream, :count] = episode.focus[part, : self._focus]
            starts[stream] = position == 0 or not self._carry_state
        instructions = drawn_wordings([episode.instructions for episode in played], self._rng)
        return Windows(images, proprioception, labels, weight, scene, landmarks, focus, instructions, starts)
