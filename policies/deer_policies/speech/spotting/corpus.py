"""Speech of many voices to train the stop word on: one file a voice, made once, continued where it was left."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import from_pcm, to_pcm, trimmed
from deer_policies.speech.spotting.phrases import ALIKE, ALONE, FIRST, HOMOPHONES, LAST
from deer_policies.speech.synthesis.engine import Synthesiser, make_synthesiser

ALONE_KIND, LAST_KIND, FIRST_KIND, ALIKE_KIND, OTHER_KIND = KINDS = ("alone", "last", "first", "alike", "other")
NOISE_KIND = "noise"
"""Nothing is said in it."""
SPEEDS = (0.85, 1.0, 1.2, 1.4)
TEST_VOICES = {
    "kokoro": (
        *("af_kore", "af_sky", "am_eric", "am_liam", "bf_lily", "bm_daniel", "em_alex", "hf_beta", "jf_nezumi"),
        "zm_yunxi",
    ),
    "piper": ("joe",),
    "pico": ("en-GB",),
    "flite": ("awb",),
    "festival": ("slt_arctic_hts",),
    "espeak": ("en-gb-scotland", "en-us+m7", "en+f3", "en-us+f4"),
}
"""Voices that nothing is trained or tuned on."""
BLENDS = 36
"""Further voices of Kokoro to train on, each the mean of two."""
ENGINES = ("hibari", "pico", "espeak", "flite", "festival", "piper", "kokoro")
PEOPLE = "people"
"""In the place of an engine, for recordings."""


@dataclass(frozen=True)
class Clip:
    """One thing that was said.

    Attributes:
        voice: engine and voice, as 'flite/slt', or PEOPLE and who speaks.
        text: what.
        kind: one of KINDS, or NOISE_KIND.
        samples: (n,) float32 at 16 kHz, without silence at the ends.
    """

    voice: str
    text: str
    kind: str
    samples: np.ndarray

    @property
    def recorded(self) -> bool:
        """Whether a person said it, in a room, before a microphone."""
        return self.voice.startswith(f"{PEOPLE}/")


def voices(test: bool) -> list[tuple[str, str]]:
    """(engine, voice) of those to train on, or to test with. Raises ConfigError if an engine is missing."""
    found = []
    for engine in ENGINES:
        held_out = TEST_VOICES.get(engine, ())
        known = [name for name in make_synthesiser(engine).voices if (name in held_out) == test]
        found += [(engine, name) for name in known]
        if engine == "kokoro" and not test:
            found += [(engine, blend) for blend in blends(known)]
    return found


def blends(names: Sequence[str]) -> list[str]:
    """`BLENDS` pairs of voices, always the same, none twice."""
    pairs = [f"{one},{other}" for at, one in enumerate(names) for other in names[at + 1 :]]
    random = np.random.default_rng(0)
    return [pairs[at] for at in random.choice(len(pairs), min(BLENDS, len(pairs)), replace=False)]


def speak(folder: Path, engine: str, voice: str, texts: Sequence[tuple[str, str, float]]) -> bool:
    """Writes a voice's clips of (kind, text, speed), unless they are there; returns whether it did."""
    path = stored(folder, engine, voice)
    wanted = json.dumps(texts)
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["texts"]) == wanted:
                return False
    synthesiser = make_synthesiser(engine)
    said = [to_pcm(_said(synthesiser, text, voice, speed)) for _, text, speed in texts]
    ends = np.cumsum([len(samples) for samples in said])
    folder.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new.npz")
    np.savez(fresh, texts=wanted, ends=ends, samples=np.concatenate(said))
    fresh.replace(path)
    return True


def _said(synthesiser: Synthesiser, text: str, voice: str, speed: float) -> np.ndarray:
    try:
        samples = trimmed(synthesiser.say(text, voice, speed))
    except ConfigError:
        # Something that this voice can't say; `read` leaves it out.
        return np.zeros(0, np.float32)
    return samples / max(1e-6, float(np.abs(samples).max(initial=0.0))) * 0.9


def stored(folder: Path, engine: str, voice: str) -> Path:
    """The file of a voice."""
    return folder / f"{engine}-{voice.replace('+', '_')}.npz"


def read_voice(folder: Path, engine: str, voice: str) -> list[Clip]:
    """The clips of a voice. Raises ConfigError if it has not spoken yet."""
    path = stored(folder, engine, voice)
    if not path.is_file():
        raise ConfigError(f"{path} is missing: voice {voice} of {engine} has not spoken yet")
    with np.load(path) as kept:
        texts, ends, samples = json.loads(str(kept["texts"])), kept["ends"], kept["samples"]
    starts = [0, *ends[:-1]]
    return [
        Clip(f"{engine}/{voice}", text, kind, from_pcm(samples[start:end]))
        for (kind, text, _), start, end in zip(texts, starts, ends, strict=True)
        if end > start and text not in HOMOPHONES
    ]


def script(engine: str, voice: str, sentences: Sequence[str], seed: int) -> list[tuple[str, str, float]]:
    """(kind, text, speed) of what a voice says: stops in many ways, words alike, and some of the sentences.

    Slow engines say less, and blends of voices fewer sentences; each voice says other things, the same for a seed.
    """
    random = np.random.default_rng([seed, zlib.crc32(f"{engine}/{voice}".encode())])
    slow, blend = engine == "kokoro", "," in voice
    counts = {LAST_KIND: 5 if slow else 14, FIRST_KIND: 4 if slow else 12, ALIKE_KIND: 10 if slow else 80}
    lines = [(ALONE_KIND, text, speed) for text in ALONE[: 2 if slow else 3] for speed in SPEEDS]
    for kind, texts in ((LAST_KIND, LAST), (FIRST_KIND, FIRST), (ALIKE_KIND, ALIKE)):
        chosen = random.choice(len(texts), min(counts[kind], len(texts)), replace=False)
        lines += [(kind, texts[at], float(random.choice(SPEEDS))) for at in chosen]
    wanted = 2 if blend else 7 if slow else 150
    chosen = random.choice(len(sentences), min(wanted, len(sentences)), replace=False)
    lines += [(OTHER_KIND, sentences[at], float(random.choice(SPEEDS[:3]))) for at in chosen]
    return lines
