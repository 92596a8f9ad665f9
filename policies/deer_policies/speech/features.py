"""Log-mel features of sound, for a whole recording or as it comes in."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from deer_policies.speech.audio import RATE_HZ

BANDS = 40
WINDOW, HOP = 400, 160
"""Samples of a frame (25 ms) and from one frame to the next (10 ms)."""
FRAME_S = HOP / RATE_HZ
FFT = 512
LOW_HZ, HIGH_HZ = 60.0, 7600.0
FLOOR = 1e-6
"""Added to the power of each band: what is weaker is no sound."""


@cache
def _window() -> np.ndarray:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


@cache
def filters() -> np.ndarray:
    """(FFT // 2 + 1, BANDS) triangles, equally wide on the mel scale of O'Shaughnessy (1987)."""
    edges_mel = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), BANDS + 2)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)
    frequency = np.fft.rfftfreq(FFT, 1 / RATE_HZ)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Features (frames, BANDS) float32 of samples (n,) in [-1, 1]; frame t is of the samples from t * HOP on."""
    count = (len(samples) - WINDOW) // HOP + 1
    if count <= 0:
        return np.zeros((0, BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[: count * HOP : HOP]
    spectrum = np.fft.rfft(frames * _window(), FFT)
    return np.asarray(np.log((np.square(np.abs(spectrum)) @ filters()) + FLOOR), np.float32)


class LogMelStream:
    """The same, for sound that comes in pieces of any size."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The frames (frames, BANDS) that are complete with these samples (n,) float32."""
        heard = np.concatenate([self._rest, samples])
        found = log_mel(heard)
        self._rest = heard[len(found) * HOP :]
        return found
