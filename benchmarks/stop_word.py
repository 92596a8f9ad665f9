"""What the two ways to a stop hear together: the spotter, and the recogniser that hears what the spotter missed.

Run: python benchmarks/stop_word.py [--recordings FOLDER ...]

Held-out voices, and the people of the recordings whom nothing was trained on, say the stop word in rooms and with
noise. What the spotter misses at its threshold goes through voice activity detection and Whisper, as in the speech
node, and counts as heard if any of its readings has a word that stops.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.recognition.engine import Recogniser, make_recogniser
from deer_policies.speech.spotting.corpus import OTHER_KIND, Clip, voices
from deer_policies.speech.spotting.listening import read_understood
from deer_policies.speech.spotting.measurement import CONDITIONS, end_s, stop_words, trace
from deer_policies.speech.spotting.recordings import TEST, read_recordings
from deer_policies.speech.spotting.spotter import Spotter
from deer_policies.speech.understanding.interpreting import says_stop
from voice import utterance

TAIL_S = 0.6
"""Further silence, so that the utterance is known to have ended."""


def measured(spotter: Spotter, recogniser: Recogniser, clips: Sequence[Clip], seed: int) -> dict[str, Any]:
    """Words, those missed by the spotter and by both, and how long after the word the second way knows (s)."""
    random = np.random.default_rng(seed)
    speech = [clip.samples for clip in clips if clip.kind == OTHER_KIND]
    found: dict[str, Any] = {"words": 0, "missed by the spotter": 0, "missed by both": 0, "at": []}
    delays = []
    for condition, ratio_db in CONDITIONS:
        for clip, sound in stop_words(clips, ratio_db, random, speech):
            found["words"] += 1
            if trace(spotter, clip, condition, sound).delay_s(spotter.config.threshold) is not None:
                continue
            found["missed by the spotter"] += 1
            silence = 1e-4 * random.standard_normal(int(TAIL_S * RATE_HZ)).astype(np.float32)
            samples, known_s = utterance(np.concatenate([sound, silence]))
            began_s = time.monotonic()
            transcript = recogniser.transcribe(samples)
            if says_stop(transcript):
                delays.append(known_s - end_s(clip) + time.monotonic() - began_s)
            else:
                found["missed by both"] += 1
                found["at"].append([condition, clip.voice, clip.text, transcript.text])
        print(f"{condition}: {found['words']} words heard", flush=True)
    found["second way p50, p95 s"] = [float(np.percentile(delays, at)) for at in (50, 95)] if delays else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path(".cache/spotter/test"), help="what the voices have said")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="folders of people's recordings")
    parser.add_argument("--checkpoint", type=Path, help="instead of the bundled one")
    parser.add_argument("--seed", type=int, default=0, help="of rooms and noises")
    parser.add_argument("--out", type=Path, default=Path("runs/stop_word.json"), help="all of it")
    arguments = parser.parse_args()
    spotter, recogniser = Spotter.load(arguments.checkpoint), make_recogniser("whisper", [])
    groups = {"voices": read_understood(arguments.speech, voices(True))}
    if arguments.recordings:
        groups["people"] = read_recordings(arguments.recordings, TEST)
    found = {name: measured(spotter, recogniser, clips, arguments.seed) for name, clips in groups.items()}
    print("| who | words | missed by the spotter | missed by both | second way, p50, p95 |\n|---|---|---|---|---|")
    for name, each in found.items():
        times = ", ".join(f"{delay:.2f}" for delay in each["second way p50, p95 s"])
        print(f"| {name} | {each['words']} | {each['missed by the spotter']} | {each['missed by both']} | {times} s |")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
