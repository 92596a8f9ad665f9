"""Hears the stop word in sound as it comes in; NumPy alone, so that it starts at once and needs little."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from deer_policies.errors import CheckpointError
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.features import FFT, FRAME_S, HOP, NARROW, WIDE, LogMelStream
from deer_policies.speech.spotting.config import BUNDLED, STEM_KERNEL, SpotterConfig
from deer_policies.speech.spotting.embedding import DIM, FRAMES, STEP, EmbeddingStream

QUIET_S = 0.7
"""After a stop, the same word is not told again for so long."""


@dataclass(frozen=True)
class Stop:
    """A stop word that was heard: when, in seconds since the first sample, and with what probability."""

    time_s: float
    probability: float


class _Taps:
    """The last inputs of a causal convolution."""

    def __init__(self, frames: int, channels: int) -> None:
        self._before = np.zeros((frames, channels), np.float32)

    def push(self, x: np.ndarray) -> np.ndarray:
        """The inputs before, and these (frames, channels)."""
        joined = np.concatenate([self._before, x])
        self._before = joined[len(joined) - len(self._before) :]
        return joined


class Spotter:
    """Runs the network as sound comes in.

    Args:
        config: sizes and threshold.
        weights: as `SpotterNetwork.exported` gives them.
    """

    def __init__(self, config: SpotterConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self._weights = dict(weights)
        self.reset()

    @classmethod
    def load(cls, path: Path | None = None, threshold: float | None = None) -> Spotter:
        """From a checkpoint; None is the bundled one, and its own threshold.

        Raises:
            CheckpointError: if it can't be read.
            ConfigError: for a threshold that is none.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(__file__).with_name(BUNDLED) if path is None else path
        try:
            with safe_open(str(path), "np") as file:
                values = json.loads((file.metadata() or {})["config"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            config = SpotterConfig(**{**values, "dilations": tuple(values["dilations"])})
            made = cls(config, weights)
            made.scores(np.zeros(FFT, np.float32))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} holds no network for the stop word: {error!r}") from error
        made.reset()
        return made if threshold is None else cls(replace(config, threshold=threshold), weights)

    def save(self, path: Path, about: Mapping[str, str]) -> None:
        """Writes a checkpoint with its configuration and what else is to be known of it."""
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self._weights, str(path), {**about, "config": json.dumps(asdict(self.config))})

    def reset(self) -> None:
        """Forgets what was heard."""
        config = self.config
        self._wide, self._narrow = LogMelStream(WIDE), LogMelStream(NARROW)
        # Samples that no step is complete with yet, and how many it takes.
        self._waiting, self._due = np.zeros(0, np.float32), FFT
        self._ahead = np.zeros((0, WIDE.bands), np.float32)
        self._primed = False
        self._stem = _Taps(STEM_KERNEL - 1, WIDE.bands)
        self._taps = [_Taps((config.kernel - 1) * dilation, config.channels) for dilation in config.dilations]
        self._stack, self._skipped = np.zeros((0, config.channels), np.float32), FRAMES - 1
        self._embedding = EmbeddingStream(self._weights)
        self._both = _Taps((config.head_kernel - 1) * config.head_dilation, DIM + config.channels)
        self._steps = 0
        self._told_s = -np.inf

    def probabilities(self, wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
        """(steps,) for features (frames, bands) that follow those before; the first is of `FRAMES` frames."""
        weights = self._weights
        embeddings = self._embedding.push(narrow) * weights["norm.scale"] + weights["norm.bias"]
        self._stack = np.concatenate([self._stack, self._stacked(wide)])
        # Of each embedding the frame at its end.
        count = len(embeddings)
        stack = self._stack[self._skipped : self._skipped + count * STEP : STEP]
        self._skipped += count * STEP
        self._stack, self._skipped = self._stack[self._skipped :], max(0, self._skipped - len(self._stack))
        taps = self._both.push(np.concatenate([embeddings, stack], 1))
        gaps = (at * self.config.head_dilation for at in range(self.config.head_kernel))
        hidden = weights["hidden.bias"] + sum(
            taps[gap : gap + count] @ weight for gap, weight in zip(gaps, weights["hidden.weight"], strict=True)
        )
        logits = (np.maximum(hidden, 0) @ weights["head.weight"] + weights["head.bias"])[:, 0]
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))))

    def _stacked(self, wide: np.ndarray) -> np.ndarray:
        """(frames, channels) of the convolutions over wide features."""
        weights, count = self._weights, len(wide)
        taps = self._stem.push(wide)
        x = weights["stem.bias"] + sum(taps[at : at + count] @ weights["stem.weight"][at] for at in range(STEM_KERNEL))
        x = np.maximum(x, 0)
        for number, dilation in enumerate(self.config.dilations):
            taps = self._taps[number].push(x)
            depthwise = weights[f"depthwise.{number}.weight"]
            y = weights[f"depthwise.{number}.bias"] + sum(
                taps[at * dilation : at * dilation + count] * depthwise[at] for at in range(self.config.kernel)
            )
            y = np.maximum(y, 0) @ weights[f"pointwise.{number}.weight"] + weights[f"pointwise.{number}.bias"]
            x = np.maximum(x + y, 0)
        return np.asarray(x)

    def scores(self, samples: np.ndarray) -> np.ndarray:
        """(steps,) what is held against the threshold, for samples (n,) float32 that follow those before."""
        self._waiting = np.concatenate([self._waiting, samples])
        if len(self._waiting) < self._due:
            return np.zeros(0)
        # Once for each step: nothing is known sooner by looking at half of one.
        wide, narrow = self._wide.push(self._waiting), self._narrow.push(self._waiting)
        self._due += ((len(self._waiting) - self._due) // (STEP * HOP) + 1) * STEP * HOP - len(self._waiting)
        self._waiting = self._waiting[:0]
        wide = np.concatenate([self._ahead, wide])
        # A wide frame is complete a little before the narrow one.
        wide, self._ahead = wide[: len(narrow)], wide[len(narrow) :]
        if not self._primed:
            # As if what comes first had been there for a while, so that it hears from the first frame on.
            self._primed = True
            wide, narrow = (np.concatenate([np.repeat(x[:1], FRAMES - 1, 0), x]) for x in (wide, narrow))
        return self.probabilities(wide, narrow)

    @staticmethod
    def time_s(step: int) -> float:
        """When a score is complete, from the first sample on: with the last sample of the step's last frame."""
        return step * STEP * FRAME_S + FFT / RATE_HZ

    def push(self, samples: np.ndarray) -> Stop | None:
        """The stop that is complete with these samples (n,) float32 at 16 kHz, if there is one."""
        stop = None
        for score in self.scores(samples):
            time_s = self.time_s(self._steps)
            self._steps += 1
            if score >= self.config.threshold and time_s - self._told_s > QUIET_S:
                self._told_s = time_s
                stop = stop or Stop(time_s, float(score))
        return stop
