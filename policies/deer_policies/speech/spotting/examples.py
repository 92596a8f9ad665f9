"""Examples to train the stop word on: speech with the word or without, in rooms and noise, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_policies.speech.audio import RATE_HZ, resampled
from deer_policies.speech.features import FFT, HOP, NARROW, WIDE, WINDOW
from deer_policies.speech.scenes.noises import NOISES, babble
from deer_policies.speech.scenes.rooms import impulse_response, in_room, mixed
from deer_policies.speech.spotting.corpus import (
    ALIKE_KIND,
    ALONE_KIND,
    FIRST_KIND,
    KINDS,
    LAST_KIND,
    NOISE_KIND,
    OTHER_KIND,
    PEOPLE,
    Clip,
)
from deer_policies.speech.spotting.embedding import FRAMES as SEEN
from deer_policies.speech.spotting.embedding import STEP

SECONDS = 2.6
SAMPLES = int(SECONDS * RATE_HZ)
FRAMES = (SAMPLES - FFT) // HOP + 1
POOL, RECORDED_POOL = 40, 120
"""Noises of each kind that is made, and of recorded ones."""
SPEAKERS = (((PEOPLE,), 0.4), (("kokoro", "hibari", "piper"), 0.3), ((), 0.3))
"""People, engines that sound like them, and all others, and how often one of each speaks."""
IGNORED, NOTHING, SOMEWHERE = -1, 0, 1
"""Labels of frames. SOMEWHERE: in at least one of these frames it is to be heard."""
FROM_END, FROM_RECORDED_END, TO_END = -6, -20, 16
"""Frames from the end of the word, in some of which it is to be heard: it may take a little more to be sure, and the
end of a recording's word is found a little late."""
BEFORE_END, AFTER_END = 34, 40
"""Frames before and after the end for which nothing else is asked."""
FIRST_FROM, FIRST_TO, FIRST_OVER = 14, 62, 90
"""Frames after the beginning of a word that comes first, whose end is not known."""


@dataclass(frozen=True)
class Example:
    """What is heard, and the labels of the network's steps.

    Attributes:
        wide, narrow: (FRAMES, bands) float32 features.
        labels: (steps,) int8.
    """

    wide: np.ndarray
    narrow: np.ndarray
    labels: np.ndarray


class ExampleMaker:
    """Makes examples without end.

    Args:
        clips: speech.
        seed: of everything that is drawn.
    """

    def __init__(self, clips: Sequence[Clip], seed: int | Sequence[int]) -> None:
        self._random = np.random.default_rng(seed)
        self._clips: dict[str, list[tuple[float, list[Clip]]]] = {}
        for kind in KINDS:
            groups: list[list[Clip]] = [[] for _ in SPEAKERS]
            for clip in clips:
                if clip.kind == kind:
                    groups[_group(clip)].append(clip)
            self._clips[kind] = [(share, group) for (_, share), group in zip(SPEAKERS, groups, strict=True) if group]
        self._speech = [clip.samples for clip in clips if clip.kind == OTHER_KIND]
        # Made once and drawn from, as they take longer than all the rest; a noise begins anywhere.
        self._noises = [noise(2 * SAMPLES, self._random) for noise in NOISES.values() for _ in range(POOL)]
        recorded = [clip.samples for clip in clips if clip.kind == NOISE_KIND]
        if recorded:
            self._noises += [self._joined(recorded) for _ in range(RECORDED_POOL)]
        self._rooms = [
            impulse_response(self._random, self._random.uniform(0.1, 0.8), self._random.uniform(-3, 15))
            for _ in range(5 * POOL)
        ]

    def make(self) -> Example:
        """One example."""
        random = self._random
        kind = random.choice(
            [ALONE_KIND, LAST_KIND, FIRST_KIND, ALIKE_KIND, OTHER_KIND, ""], p=[0.25, 0.13, 0.1, 0.22, 0.24, 0.06]
        )
        speech, labels = self._spoken(kind)
        heard = self._heard(speech)
        return Example(WIDE.of(heard)[:FRAMES], NARROW.of(heard), labels[SEEN - 1 :: STEP])

    def _draw(self, kind: str) -> tuple[np.ndarray, bool]:
        """A clip, its voice a little higher or lower, and whether a person said it."""
        shares = np.array([share for share, _ in self._clips[kind]])
        _, clips = self._clips[kind][int(self._random.choice(len(shares), p=shares / shares.sum()))]
        clip = clips[self._random.integers(len(clips))]
        return resampled(clip.samples, 100, int(self._random.integers(82, 122))), clip.recorded

    def _spoken(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Dry speech (SAMPLES,) and its labels: the clip somewhere, often with other speech around it."""
        random = self._random
        speech, labels = np.zeros(SAMPLES, np.float32), np.zeros(FRAMES, np.int8)
        if not kind:
            return speech, labels
        clip, recorded = self._draw(kind)
        if len(clip) < SAMPLES:
            # Where the network has begun by the time that it ends.
            first = max(0, SEEN * HOP - len(clip))
            start = int(random.integers(first, max(first + 1, SAMPLES - len(clip) - int(0.3 * RATE_HZ))))
        else:
            start = -int(random.integers(0, len(clip) - SAMPLES + 1))
        self._put(speech, clip, start)
        if random.random() < 0.5:
            before, _ = self._draw(OTHER_KIND if random.random() < 0.7 else ALIKE_KIND)
            self._put(speech, before, start - int(random.uniform(0.02, 0.5) * RATE_HZ) - len(before))
        if random.random() < 0.4:
            after, _ = self._draw(OTHER_KIND if random.random() < 0.7 else ALIKE_KIND)
            self._put(speech, after, start + len(clip) + int(random.uniform(0.05, 0.5) * RATE_HZ))
        if kind in (ALONE_KIND, LAST_KIND):
            end = (start + len(clip) - WINDOW) // HOP
            _mark(labels, end - BEFORE_END, end + AFTER_END, IGNORED)
            _mark(labels, end + (FROM_RECORDED_END if recorded else FROM_END), end + TO_END, SOMEWHERE)
        elif kind == FIRST_KIND:
            begin = (start - WINDOW) // HOP
            _mark(labels, begin + FIRST_FROM, begin + FIRST_OVER, IGNORED)
            _mark(labels, begin + FIRST_FROM, begin + FIRST_TO, SOMEWHERE)
        return speech, labels

    def _joined(self, recorded: Sequence[np.ndarray]) -> np.ndarray:
        """(2 * SAMPLES,) of recorded noises, one after the other."""
        found = np.zeros(0, np.float32)
        while len(found) < 2 * SAMPLES:
            found = np.concatenate([found, recorded[int(self._random.integers(len(recorded)))]])
        return found[: 2 * SAMPLES]

    @staticmethod
    def _put(speech: np.ndarray, clip: np.ndarray, start: int) -> None:
        """Adds a clip; what lies outside is cut off."""
        clip = clip[max(0, -start) :]
        start = max(0, start)
        part = speech[start : start + len(clip)]
        part += clip[: len(part)]

    def _heard(self, speech: np.ndarray) -> np.ndarray:
        """In a room, with noise, through a microphone, at some level."""
        random = self._random
        if random.random() < 0.6:
            speech = in_room(speech, self._rooms[random.integers(len(self._rooms))])
        noise = np.zeros(SAMPLES, np.float32)
        if random.random() < 0.8:
            noise = self._noise()
        heard = mixed(speech, noise, random.uniform(0, 30)) if noise.any() else speech
        if random.random() < 0.4:
            heard = _through_microphone(heard, random)
        peak = max(1e-4, float(np.abs(heard).max()))
        heard = heard / peak * 10 ** (random.uniform(-35, 3) / 20)
        return np.asarray(
            np.clip(heard, -1, 1) + 10 ** (random.uniform(-85, -55) / 20) * random.standard_normal(SAMPLES), np.float32
        )

    def _noise(self) -> np.ndarray:
        random = self._random
        if random.random() < 0.3:
            return babble(SAMPLES, random, self._speech, int(random.integers(1, 7)))
        noise = self._noises[random.integers(len(self._noises))]
        start = int(random.integers(0, SAMPLES))
        return noise[start : start + SAMPLES]


def _group(clip: Clip) -> int:
    """Which of SPEAKERS says it; the last one has all others."""
    engine = clip.voice.split("/")[0]
    return next((at for at, (engines, _) in enumerate(SPEAKERS) if engine in engines), len(SPEAKERS) - 1)


def _mark(labels: np.ndarray, start: int, end: int, label: int) -> None:
    labels[max(0, start) : max(0, end)] = label


def _through_microphone(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """With a smooth curve of its own over frequency."""
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / RATE_HZ), 60) / 60)
    curve_db = np.interp(octave, np.arange(8), random.uniform(-10, 6, 8))
    return np.asarray(np.fft.irfft(spectrum * 10 ** (curve_db / 20), len(samples)), np.float32)
