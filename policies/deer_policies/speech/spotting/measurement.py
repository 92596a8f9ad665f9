"""How well the stop word is heard: misses, false stops in speech and noise, and how long after the word it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.scenes.noises import NOISES, babble
from deer_policies.speech.scenes.rooms import impulse_response, in_room, mixed
from deer_policies.speech.spotting.corpus import ALIKE_KIND, ALONE_KIND, LAST_KIND, OTHER_KIND, Clip
from deer_policies.speech.spotting.spotter import QUIET_S, Spotter

CONDITIONS: tuple[tuple[str, float | None], ...] = (("clean", None), ("20 dB", 20.0), ("10 dB", 10.0), ("5 dB", 5.0))
CHUNK = 320
"""Samples that come at once (20 ms)."""
LEAD_S, TAIL_S = 0.6, 0.7
EARLY_S, LATE_S = 0.3, 0.5
"""A stop is of this word if it is told from so long before its end to so long after; of a recorded word, whose end may
have been found late, from its beginning on."""
MOST_ALIKE = 800
"""Words alike that are heard."""
WANTED_MISSES, WANTED_FALSE = 0.005, 1.0
"""Share of the words, and false stops in 30 minutes of speech and noise."""
HAZARD = 2.0
"""How much worse it is to go on after "stop" than to stop for nothing."""
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)


@dataclass(frozen=True)
class Trace:
    """How a piece of sound scored.

    Attributes:
        condition, voice: noise, and who speaks; '' for several.
        scores: the greatest of each 20 ms.
        end_s: when the word ends, from the beginning of the sound.
        texts: what is said when: time of the end, and voice and text.
        early_s: how long before the end of the word a stop is of it already.
    """

    condition: str
    voice: str
    scores: np.ndarray
    end_s: float = 0.0
    texts: tuple[tuple[float, str], ...] = ()
    early_s: float = EARLY_S

    def stops(self, threshold: float) -> list[float]:
        """Times in s at which a stop is told: at the end of the 20 ms in which it is heard; not again for a while."""
        found: list[float] = []
        for at in np.flatnonzero(self.scores >= threshold):
            time_s = (at + 1) * CHUNK / RATE_HZ
            if not found or time_s - found[-1] >= QUIET_S - 1e-6:
                found.append(time_s)
        return found

    def delay_s(self, threshold: float) -> float | None:
        """From the end of the word to the stop that is of it; None if it is missed."""
        delays = [time_s - self.end_s for time_s in self.stops(threshold)]
        return next((delay for delay in delays if -self.early_s <= delay <= LATE_S), None)


def measure(
    spotter: Spotter, clips: Sequence[Clip], seed: int, minutes: float, told: Callable[[str], None]
) -> dict[float, dict[str, Any]]:
    """Misses, delays and false stops, for each of THRESHOLDS.

    Args:
        spotter: what is measured; its own threshold does not matter.
        clips: speech.
        seed: of rooms and noises.
        minutes: of speech and noise without the word.
        told: progress.
    """
    random = np.random.default_rng(seed)
    speech = [clip.samples for clip in clips if clip.kind == OTHER_KIND]
    words: list[Trace] = []
    for condition, ratio_db in CONDITIONS:
        for clip, sound in stop_words(clips, ratio_db, random, speech):
            words.append(trace(spotter, clip, condition, sound))
        told(f"{len(words)} words heard")
    others = list(_others(spotter, [clip for clip in clips if clip.kind == OTHER_KIND], random, speech, minutes))
    told(f"{minutes:g} minutes of speech and noise heard")
    others_said = [clip for clip in clips if clip.kind == ALIKE_KIND]
    alike = []
    for clip in others_said[:: -(-len(others_said) // MOST_ALIKE) or 1]:
        condition, ratio_db = CONDITIONS[random.integers(len(CONDITIONS))]
        alike.append(trace(spotter, clip, condition, _said(clip, ratio_db, random, speech)))
    told(f"{len(alike)} words alike heard")
    return {threshold: _at(threshold, words, others, alike) for threshold in THRESHOLDS}


def chosen(measured: dict[float, dict[str, Any]]) -> float:
    """The threshold with the least sum of misses and false stops, each as a multiple of what is wanted; a miss counts
    `HAZARD` times, as a false stop does no harm."""

    def cost(threshold: float) -> float:
        words, false = measured[threshold]["all"], measured[threshold]["false"]
        missed = words["missed"] / words["words"]
        return float(HAZARD * missed / WANTED_MISSES + false["per 30 minutes"] / WANTED_FALSE)

    return min(measured, key=cost)


def _at(threshold: float, words: Sequence[Trace], others: Sequence[Trace], alike: Sequence[Trace]) -> dict[str, Any]:
    delays = [(word, word.delay_s(threshold)) for word in words]
    found: dict[str, Any] = {}
    for name, _ in CONDITIONS:
        found[name] = _summary([delay for word, delay in delays if word.condition == name])
    found["all"] = _summary([delay for _, delay in delays])
    voices = {
        voice: [delay for word, delay in delays if word.voice == voice] for voice in {word.voice for word in words}
    }
    found["missed"] = {
        voice: f"{missed} of {len(of)}" for voice, of in sorted(voices.items()) if (missed := of.count(None))
    }
    at = [
        next((text for end_s, text in trace.texts if end_s > time_s - 0.1), "after the end")
        for trace in others
        for time_s in trace.stops(threshold)
    ]
    minutes = sum(len(trace.scores) for trace in others) * CHUNK / RATE_HZ / 60
    found["false"] = {
        "minutes": round(minutes, 1),
        "stops": len(at),
        "per 30 minutes": 30 * len(at) / minutes,
        "at": at,
    }
    taken = [trace for trace in alike if trace.stops(threshold)]
    found["alike"] = {"words": len(alike), "taken": len(taken), "at": [trace.texts[0][1] for trace in taken][:40]}
    return found


def stop_words(
    clips: Sequence[Clip], ratio_db: float | None, random: np.random.Generator, speech: Sequence[np.ndarray]
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Each clip that ends with the stop word, and its sound with silence around it, as `heard` gives it."""
    for clip in clips:
        if clip.kind in (ALONE_KIND, LAST_KIND):
            yield clip, _said(clip, ratio_db, random, speech)


def end_s(clip: Clip) -> float:
    """When what is said has ended in the sound that `stop_words` gives."""
    return LEAD_S + len(clip.samples) / RATE_HZ


def _said(clip: Clip, ratio_db: float | None, random: np.random.Generator, speech: Sequence[np.ndarray]) -> np.ndarray:
    lead, tail = (np.zeros(int(seconds * RATE_HZ), np.float32) for seconds in (LEAD_S, TAIL_S))
    return heard(np.concatenate([lead, clip.samples, tail]), ratio_db, random, speech, room=not clip.recorded)


def trace(spotter: Spotter, clip: Clip, condition: str, sound: np.ndarray) -> Trace:
    """How a clip's sound, as `stop_words` gives it, scores."""
    texts = ((end_s(clip), f"{clip.voice}: {clip.text}"),)
    early_s = max(EARLY_S, len(clip.samples) / RATE_HZ) if clip.recorded else EARLY_S
    return Trace(condition, clip.voice, scores(spotter, sound), end_s(clip), texts, early_s)


def heard(
    sound: np.ndarray,
    ratio_db: float | None,
    random: np.random.Generator,
    speech: Sequence[np.ndarray],
    room: bool = True,
) -> np.ndarray:
    """Speech (n,) as it comes to a microphone in a room, with a noise so much weaker; None: a quiet room.

    What was recorded in a room already takes `room` False.
    """
    if room:
        sound = in_room(sound, impulse_response(random, random.uniform(0.15, 0.6), random.uniform(0, 12)))
    if ratio_db is not None:
        names = [*NOISES, "babble"]
        name = names[random.integers(len(names))]
        noise = babble(len(sound), random, speech) if name == "babble" else NOISES[name](len(sound), random)
        sound = mixed(sound, noise, ratio_db)
    level = 10 ** (random.uniform(-25, -3) / 20)
    sound = sound / max(1e-6, float(np.abs(sound).max(initial=0.0))) * level
    return np.asarray(sound + 1e-4 * random.standard_normal(len(sound)), np.float32)


def scores(spotter: Spotter, sound: np.ndarray) -> np.ndarray:
    """The greatest score of each 20 ms of sound (n,), from a new beginning, as if it came in such pieces."""
    spotter.reset()
    found = np.zeros(len(sound) // CHUNK)
    for step, score in enumerate(spotter.scores(sound)):
        piece = -(-round(Spotter.time_s(step) * RATE_HZ) // CHUNK) - 1
        if piece < len(found):
            found[piece] = max(found[piece], score)
    return found


def _summary(delays: Sequence[float | None]) -> dict[str, Any]:
    delays_ms = np.array([1e3 * delay for delay in delays if delay is not None])
    quantiles = (50, 95, 99, 100) if len(delays_ms) else ()
    times = {f"p{at:g} ms": round(float(np.percentile(delays_ms, at)), 1) for at in quantiles}
    return {"words": len(delays), "missed": len(delays) - len(delays_ms), **times}


def _others(
    spotter: Spotter, clips: Sequence[Clip], random: np.random.Generator, speech: list[np.ndarray], minutes: float
) -> Iterator[Trace]:
    """Sentences without the word, with pauses, in all conditions."""
    heard_s = 0.0
    while heard_s < 60 * minutes:
        said = [clips[int(random.integers(len(clips)))] for _ in range(5)]
        pause = [np.zeros(int(random.uniform(0.1, 1.5) * RATE_HZ), np.float32) for _ in said]
        sound = np.concatenate([part for clip, gap in zip(said, pause, strict=True) for part in (clip.samples, gap)])
        name, ratio_db = CONDITIONS[random.integers(len(CONDITIONS))]
        ends = np.cumsum([len(clip.samples) + len(gap) for clip, gap in zip(said, pause, strict=True)]) / RATE_HZ
        texts = tuple((float(end_s), f"{clip.voice}: {clip.text}") for end_s, clip in zip(ends, said, strict=True))
        room = not any(clip.recorded for clip in said)
        yield Trace(name, "", scores(spotter, heard(sound, ratio_db, random, speech, room)), texts=texts)
        heard_s += len(sound) / RATE_HZ
