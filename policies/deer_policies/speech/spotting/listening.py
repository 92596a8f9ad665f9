"""Whether the stop word is to be heard in a clip that should have it: engines garble single words now and then."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deer_policies.model_store.store import ModelStore
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.recognition.whisper import MODEL
from deer_policies.speech.recognition.words import normalised
from deer_policies.speech.spotting.corpus import (
    ALONE_KIND,
    FIRST_KIND,
    LAST_KIND,
    Clip,
    read_voice,
    stored,
)

GARBLING = ("kokoro",)
"""Engines that draw their speech and now and then add a sound to a short one, leave one out, or say another."""
AROUND_S, NOISE = 0.5, 1e-4
"""Quiet before and after a clip, and the noise of it."""
STOP = "stop"


class Listener:
    """Whisper, without a prompt that would lean it towards a word."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(ModelStore().path(MODEL)), device="cpu", compute_type="int8", cpu_threads=1)

    def __call__(self, clip: Clip) -> str:
        """What it writes of a clip."""
        around = np.zeros(int(AROUND_S * RATE_HZ), np.float32)
        sound = 0.5 * np.concatenate([around, clip.samples, around])
        random = np.random.default_rng(zlib.crc32(clip.samples.tobytes()))
        sound = (sound + NOISE * random.standard_normal(len(sound))).astype(np.float32)
        segments, _ = self._model.transcribe(
            sound, language="en", beam_size=1, without_timestamps=True, condition_on_previous_text=False
        )
        return normalised(" ".join(segment.text for segment in segments))


def listen(folder: Path, engine: str, voice: str, listener: Callable[[Clip], str]) -> bool:
    """Writes what a listener hears in a voice's clips with the stop word, unless it is there; returns whether so."""
    path = _path(folder, engine, voice)
    said = [clip for clip in read_voice(folder, engine, voice) if _asked(clip)]
    known = json.loads(path.read_text()) if path.is_file() else {}
    if {_key(clip) for clip in said} == set(known):
        return False
    found = {_key(clip): listener(clip) for clip in said}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(found, indent=1))
    fresh.replace(path)
    return True


def read_understood(folder: Path, chosen: Sequence[tuple[str, str]]) -> list[Clip]:
    """The clips of some voices; of engines that garble, without those in which the stop word is not
    heard where it should be. A voice that nobody has listened to yet has none with the word."""
    clips = []
    for engine, voice in chosen:
        said = read_voice(folder, engine, voice)
        if engine in GARBLING:
            path = _path(folder, engine, voice)
            heard = json.loads(path.read_text()) if path.is_file() else {}
            said = [clip for clip in said if not _asked(clip) or understood(clip.kind, heard.get(_key(clip), ""))]
        clips += said
    return clips


def understood(kind: str, text: str) -> bool:
    """Whether a text has the stop word, and nothing else, or where a clip of this kind has it."""
    words = normalised(text).split()
    if STOP not in words:
        return False
    return {ALONE_KIND: set(words) == {STOP}, LAST_KIND: words[-1] == STOP, FIRST_KIND: words[0] == STOP}[kind]


def _asked(clip: Clip) -> bool:
    return clip.kind in (ALONE_KIND, LAST_KIND, FIRST_KIND)


def _key(clip: Clip) -> str:
    return f"{zlib.crc32(clip.samples.tobytes()):08x}"


def _path(folder: Path, engine: str, voice: str) -> Path:
    return stored(folder, engine, voice).with_suffix(".heard.json")
