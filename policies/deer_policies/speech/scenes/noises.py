"""Noises as around a robot, made from a generator: hiss, hum, motors, knocks, tunes and babble."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from deer_policies.speech.audio import RATE_HZ

Made = Callable[[int, np.random.Generator], np.ndarray]


def coloured(samples: int, random: np.random.Generator, slope: float) -> np.ndarray:
    """Noise whose power falls with frequency to the power `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / RATE_HZ), 20.0)
    return np.asarray(np.fft.irfft(spectrum * frequency ** (-slope / 2), samples), np.float32)


def hiss(samples: int, random: np.random.Generator) -> np.ndarray:
    """A fan or air: noise of any colour, swelling slowly."""
    swell = 1 + 0.3 * np.sin(2 * np.pi * random.uniform(0.1, 1.0) * _time(samples) + random.uniform(0, 6))
    return np.asarray(coloured(samples, random, random.uniform(0, 2)) * swell, np.float32)


def hum(samples: int, random: np.random.Generator) -> np.ndarray:
    """A transformer: a mains frequency and its multiples."""
    base = random.choice([50.0, 60.0, 100.0])
    tones = [np.sin(2 * np.pi * base * at * _time(samples) + random.uniform(0, 6)) / at for at in range(1, 12)]
    return np.asarray(np.sum(tones, 0) + 0.05 * random.standard_normal(samples), np.float32)


def motor(samples: int, random: np.random.Generator) -> np.ndarray:
    """A servo: a whine whose pitch follows its speed, up, along and down, with the noise of its gears."""
    points = random.integers(3, 8)
    speed = np.interp(
        np.linspace(0, 1, samples), np.linspace(0, 1, points), random.uniform(0.2, 1.0, points) * random.uniform(0.5, 1)
    )
    phase = 2 * np.pi * np.cumsum(random.uniform(300, 1500) * speed) / RATE_HZ
    whine = sum(np.sin(at * phase + random.uniform(0, 6)) * random.uniform(0.2, 1) / at for at in range(1, 6))
    return np.asarray((whine + random.uniform(0.3, 2) * random.standard_normal(samples)) * speed, np.float32)


def knocks(samples: int, random: np.random.Generator) -> np.ndarray:
    """Things that are put down or fall: short resonances."""
    made = 0.01 * coloured(samples, random, 1.0)
    for _ in range(max(1, round(random.uniform(0.5, 4) * samples / RATE_HZ))):
        length = int(random.uniform(0.02, 0.25) * RATE_HZ)
        time_s = _time(length)
        strike = np.exp(-time_s * random.uniform(15, 120)) * (
            np.sin(2 * np.pi * random.uniform(80, 3000) * time_s) + 0.5 * random.standard_normal(length)
        )
        start = int(random.integers(0, max(1, samples - length)))
        part = made[start : start + length]
        part += random.uniform(0.3, 1) * strike[: len(part)]
    return np.asarray(made, np.float32)


def tune(samples: int, random: np.random.Generator) -> np.ndarray:
    """Music from a radio: chords with a beat."""
    made = np.zeros(samples)
    beat = int(random.uniform(0.15, 0.5) * RATE_HZ)
    for start in range(0, samples, beat):
        length = min(2 * beat, samples - start)
        time_s = _time(length)
        root = 110 * 2 ** (random.integers(0, 24) / 12)
        for step in random.choice([0, 3, 4, 5, 7, 9, 12], 3, replace=False):
            tones = sum(np.sin(2 * np.pi * root * 2 ** (step / 12) * at * time_s) / at**1.5 for at in range(1, 6))
            made[start : start + length] += tones * np.exp(-time_s * random.uniform(1, 8))
        if random.random() < 0.6:
            drum = np.exp(-time_s * 40) * random.standard_normal(length)
            made[start : start + length] += 2 * drum
    return np.asarray(made, np.float32)


NOISES: dict[str, Made] = {"hiss": hiss, "hum": hum, "motor": motor, "knocks": knocks, "tune": tune}
"""All but babble, which needs voices."""


def babble(samples: int, random: np.random.Generator, speech: Sequence[np.ndarray], voices: int = 6) -> np.ndarray:
    """Many people who talk at once: so many streams of the given speech (n,), each begun anywhere in it."""
    made = np.zeros(samples, np.float32)
    for _ in range(voices):
        at = 0
        while at < samples:
            said = speech[int(random.integers(len(speech)))]
            part = said[: samples - at] if at else said[random.integers(0, max(1, len(said) // 2)) :][:samples]
            made[at : at + len(part)] += random.uniform(0.4, 1.0) * part / max(1e-3, float(np.abs(said).max()))
            at += len(part) + int(random.uniform(0.05, 0.4) * RATE_HZ)
    return made


def _time(samples: int) -> np.ndarray:
    return np.arange(samples) / RATE_HZ
