"""Log-mel features of sound, for a whole recording or as it comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deer_policies.speech.audio import RATE_HZ

HOP = 160
"""Samples from one frame to the next (10 ms)."""
FRAME_S = HOP / RATE_HZ
FFT = 512
WINDOW = 400
"""Samples of a frame that count (25 ms)."""
FULL_SCALE = 32767.0


@dataclass(frozen=True)
class LogMel:
    """Features (frames, bands) float32 of samples in [-1, 1]: scale * ln(power in each band + floor) + offset.

    Attributes:
        window: (samples,) of a frame; frame t is of the samples from t * HOP on.
        filters: (FFT // 2 + 1, bands).
        floor: what is weaker is no sound.
        scale, offset: of the logarithm.
    """

    window: np.ndarray
    filters: np.ndarray
    floor: float
    scale: float = 1.0
    offset: float = 0.0

    @property
    def bands(self) -> int:
        """How many there are."""
        return self.filters.shape[1]

    def of(self, samples: np.ndarray) -> np.ndarray:
        """The frames that are complete in samples (n,)."""
        count = (len(samples) - len(self.window)) // HOP + 1
        if count <= 0:
            return np.zeros((0, self.bands), np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(samples, len(self.window))[: count * HOP : HOP]
        spectrum = np.fft.rfft(frames * self.window, FFT)
        power = (np.square(np.abs(spectrum)) @ self.filters) + self.floor
        return np.asarray(self.scale * np.log(power) + self.offset, np.float32)


class LogMelStream:
    """The same, for sound that comes in pieces of any size."""

    def __init__(self, mel: LogMel) -> None:
        self._mel = mel
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The frames (frames, bands) that are complete with these samples (n,) float32."""
        heard = np.concatenate([self._rest, samples])
        found = self._mel.of(heard)
        self._rest = heard[len(found) * HOP :]
        return found


def shaughnessy(hz: np.ndarray) -> np.ndarray:
    """Mel of a frequency after O'Shaughnessy (1987)."""
    return np.asarray(2595 * np.log10(1 + hz / 700))


def slaney(hz: np.ndarray) -> np.ndarray:
    """Mel of a frequency after Slaney's Auditory Toolbox (1998): linear to 1 kHz, logarithmic above."""
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))


def triangles(
    bands: int, low_hz: float, high_hz: float, mel: Callable[[np.ndarray], np.ndarray], area: bool
) -> np.ndarray:
    """(FFT // 2 + 1, bands) filters, equally wide on the mel scale; `area`: each with the area 1, else the height 1."""
    grid = np.arange(0, RATE_HZ // 2 + 1, 0.5)
    low, high = mel(np.array([low_hz, high_hz]))
    wanted = np.linspace(low, high, bands + 2)
    edges = np.interp(wanted, mel(grid), grid)
    frequency = np.fft.rfftfreq(FFT, 1 / RATE_HZ)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    found = np.clip(np.minimum(rise, fall), 0, None)
    return np.asarray(found * (2 / (edges[2:] - edges[:-2]) if area else 1), np.float32)


def _window(samples: int) -> np.ndarray:
    """A periodic Hann window of WINDOW samples in the middle of so many."""
    window = np.zeros(samples, np.float32)
    before = (samples - WINDOW) // 2
    window[before : before + WINDOW] = np.hanning(WINDOW + 1)[:-1]
    return window


WIDE = LogMel(_window(WINDOW), triangles(40, 60.0, 7600.0, shaughnessy, area=False), floor=1e-6)
"""All that there is at 16 kHz."""
NARROW = LogMel(
    _window(FFT),
    triangles(32, 60.0, 3800.0, slaney, area=True),
    floor=FULL_SCALE**-2,
    scale=1 / np.log(10),
    offset=2 + 2 * np.log10(FULL_SCALE),
)
"""What Google's speech embedding hears: a tenth of the decibels of samples of 16 bits, and two."""
