"""Sound as numbers: mono samples at 16 kHz, their files, and other rates."""

from __future__ import annotations

import wave
from math import gcd
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError

RATE_HZ = 16_000
"""Samples a second of everything that is heard."""
FULL_SCALE = 32_768.0
"""Of 16-bit samples; as numbers they lie in [-1, 1)."""
QUIET = 1e-7
"""Power below which there is no sound at all."""


def from_pcm(samples: np.ndarray) -> np.ndarray:
    """Samples int16 as float32 in [-1, 1)."""
    return samples.astype(np.float32) / FULL_SCALE


def to_pcm(samples: np.ndarray) -> np.ndarray:
    """Samples as int16; what is beyond [-1, 1) is cut off."""
    return np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def resampled(samples: np.ndarray, from_hz: int, to_hz: int = RATE_HZ) -> np.ndarray:
    """The samples (n,) float32 at another rate, low-passed below the lower of both."""
    if from_hz == to_hz:
        return samples
    from scipy.signal import resample_poly

    shared = gcd(from_hz, to_hz)
    return np.asarray(resample_poly(samples, to_hz // shared, from_hz // shared), np.float32)


def read_wav(path: Path) -> np.ndarray:
    """A file's samples (n,) float32 at 16 kHz; several channels become their mean.

    Raises:
        ConfigError: if it is no WAV file of 16-bit samples.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate_hz = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(f"{path} can't be read as sound: {error}; give a WAV file") from error
    if width != 2:
        raise ConfigError(f"{path} has samples of {8 * width} bits; give a WAV file of 16-bit samples")
    frames = from_pcm(np.frombuffer(data, "<i2").reshape(-1, channels))
    return resampled(frames.mean(1), rate_hz)


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    """Writes samples (n,) float32 as 16-bit mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(to_pcm(samples).astype("<i2").tobytes())


def power(samples: np.ndarray) -> float:
    """Mean square of the samples."""
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def trimmed(samples: np.ndarray, below_db: float = 40.0, window_s: float = 0.01) -> np.ndarray:
    """Without the silence at both ends: windows weaker than the strongest one by more than so much."""
    size = int(window_s * RATE_HZ)
    count = len(samples) // size
    if count == 0:
        return samples
    powers = np.square(samples[: count * size], dtype=np.float64).reshape(count, size).mean(1)
    loud = np.flatnonzero(powers > max(powers.max() * 10 ** (-below_db / 10), QUIET))
    return samples[loud[0] * size : (loud[-1] + 1) * size] if len(loud) else samples[:0]
