"""People's recordings to train and test the stop word on, in the layout of Google's Speech Commands (arXiv 1804.03209).

Folders of WAV files, at any depth, each called after the word that is said in it; a file is called after who speaks,
as `stop/0a7c2a8d_nohash_0.wav`. Files of folders of another name are speech without the stop word, or noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, read_wav
from deer_policies.speech.spotting.corpus import ALIKE_KIND, ALONE_KIND, NOISE_KIND, OTHER_KIND, PEOPLE, Clip

TRAINING, TUNING, TEST = "training", "tuning", "test"
STOP, SILENCE = "stop", "_silence_"
"""Folders of the stop word, and of noise."""
MOST = 500
"""Files of one word; of some there are thousands."""
WORD_S = 1.2
"""What is longer is a sentence."""
FRAME = 160
BELOW_DB, ABOVE_NOISE_DB, ABOVE_NOISE_SHARE = 40.0, 8.0, 0.22
"""A frame is speech if it is weaker than the strongest by less than this, and above the noise by more than this and by
more than this share of the distance from the noise to the strongest."""
NOISE_QUANTILE, NOTHING_DB = 0.15, -110.0
"""Of the frames, where the noise is; of those that are not nothing at all, as where a recording was filled up."""
LEAST_BELOW_DB = 8.0
"""A frame is speech in any case if it is weaker than the strongest by less than this: all may be speech."""
LONGEST_GAP_S = 0.25
"""Within a word: the closure before a plosive. What is beyond a longer one is another sound."""
LEAST_S = 0.15
BEFORE_S = 0.15
"""Is left before the word: its first sound may be as weak as the noise."""


def read_recordings(folders: Sequence[Path], part: str) -> list[Clip]:
    """The clips of the people of one part; no person is in two.

    Raises:
        ConfigError: if a folder has no WAV files, or one of them can't be read.
    """
    words: dict[str, list[Path]] = {}
    for folder in folders:
        files = sorted(folder.rglob("*.wav"))
        if not files:
            raise ConfigError(f"{folder} has no WAV files; give a folder of recordings, as WORD/SPEAKER_nohash_N.wav")
        for file in files:
            if part_of(speaker(file)) == part:
                words.setdefault(file.parent.name, []).append(file)
    clips: dict[bytes, Clip] = {}
    for word, files in words.items():
        for at in np.random.default_rng(0).permutation(len(files))[:MOST]:
            samples = read_wav(files[at])
            if word == SILENCE:
                kind = NOISE_KIND
            elif len(samples) <= WORD_S * RATE_HZ:
                samples = spoken_part(samples)
                kind = ALONE_KIND if word == STOP else ALIKE_KIND
            else:
                kind = OTHER_KIND
            if len(samples) >= LEAST_S * RATE_HZ and samples.any():
                samples = samples / float(np.abs(samples).max()) * 0.9
                # Copies of a dataset have the same files.
                clips[samples.tobytes()] = Clip(f"{PEOPLE}/{speaker(files[at])}", word, kind, samples)
    return list(clips.values())


def speaker(file: Path) -> str:
    """Who speaks, by the file's name; words of a mixed folder are named before, as `dog_43fc47a7_nohash_0`."""
    return file.stem.split("_nohash_")[0].rsplit("_", 1)[-1]


def part_of(name: str) -> str:
    """Which part a person is in: half of them train, a third tests, the others choose the threshold."""
    share = zlib.crc32(name.encode()) % 20
    return TEST if share < 7 else TUNING if share < 10 else TRAINING


def spoken_part(samples: np.ndarray) -> np.ndarray:
    """The word in a recording (n,) of one, without the noise before and after it; nothing if there is only noise."""
    count = len(samples) // FRAME
    # An 's' is high and weak, noise in a room is low.
    raised = np.diff(samples, prepend=np.float32(0.0))
    power = np.square(raised[: count * FRAME], dtype=np.float64).reshape(count, FRAME).mean(1)
    level_db = 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-12) if count else np.zeros(0)
    heard_db = level_db[level_db > NOTHING_DB]
    if not len(heard_db):
        return samples[:0]
    most, noise = heard_db.max(), np.quantile(heard_db, NOISE_QUANTILE)
    above_db = max(ABOVE_NOISE_DB, ABOVE_NOISE_SHARE * (most - noise))
    loud = np.flatnonzero(level_db > max(most - BELOW_DB, min(noise + above_db, most - LEAST_BELOW_DB)))
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > LONGEST_GAP_S * RATE_HZ / FRAME) + 1)
    part = max(parts, key=lambda frames: power[frames].sum())
    return samples[max(0, part[0] * FRAME - int(BEFORE_S * RATE_HZ)) : (part[-1] + 1) * FRAME]
