"""Hears the stop word in sound as it comes in; NumPy alone, so that it starts at once and needs little."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from deer_policies.errors import CheckpointError
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.features import BANDS, FRAME_S, WINDOW, LogMelStream
from deer_policies.speech.spotting.config import BUNDLED, STEM_KERNEL, SpotterConfig

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
    """Runs the network frame by frame.

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
            made.probabilities(np.zeros((1, BANDS), np.float32))
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
        self._mel = LogMelStream()
        self._stem = _Taps(STEM_KERNEL - 1, BANDS)
        self._taps = [_Taps((config.kernel - 1) * dilation, config.channels) for dilation in config.dilations]
        self._means = _Taps(config.mean_frames - 1, 1)
        self._frames = 0
        self._told_s = -np.inf

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(frames,) for features (frames, BANDS) that follow those before."""
        weights, count = self._weights, len(features)
        taps = self._stem.push(features)
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
        logits = (x @ weights["head.weight"] + weights["head.bias"])[:, 0]
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))))

    def scores(self, samples: np.ndarray) -> np.ndarray:
        """(frames,) what is held against the threshold, for samples (n,) float32 that follow those before."""
        features = self._mel.push(samples)
        if not len(features):
            return np.zeros(0)
        found = self.probabilities(features)
        taps, count = self._means.push(found[:, None].astype(np.float32))[:, 0], self.config.mean_frames
        return np.asarray(np.convolve(taps, np.ones(count) / count, "valid"))

    def push(self, samples: np.ndarray) -> Stop | None:
        """The stop that is complete with these samples (n,) float32 at 16 kHz, if there is one."""
        stop = None
        for score in self.scores(samples):
            self._frames += 1
            # The last sample of the frame.
            time_s = (self._frames - 1) * FRAME_S + WINDOW / RATE_HZ
            if score >= self.config.threshold and time_s - self._told_s > QUIET_S:
                self._told_s = time_s
                stop = stop or Stop(time_s, float(score))
        return stop
