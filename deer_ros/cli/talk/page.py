"""The page and the sound of `deer talk`: waveforms, transcripts, commands and motion on one axis of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.speech.audio import RATE_HZ, write_wav
from deer_ros.cli.pages import render

PAGE, SOUND = "talk.html", "talk.wav"
PIXELS_A_SECOND = 60
WAVE_HEIGHT, SPEED_HEIGHT = 50, 70
FASTEST_M_S = 0.4
PAUSE_S = 0.3


def write(folder: Path, report: dict[str, Any], mouth: Any, witness: Any) -> None:
    """Writes both into a folder.

    Args:
        folder: of the run.
        report: as in talk.json.
        mouth: what was said to the robot.
        witness: what it said and did.
    """
    heard = np.concatenate(mouth.sound) if mouth.sound else np.zeros(1, np.float32)
    voice = _on_axis(witness.voice, mouth.began_s, len(heard))
    write_wav(folder / SOUND, np.clip(heard + 0.7 * voice, -1, 1))
    seconds = len(heard) / RATE_HZ
    content = {
        "report": report,
        "sound": SOUND,
        "seconds": seconds,
        "width": round(seconds * PIXELS_A_SECOND),
        "scale": PIXELS_A_SECOND,
        "wave_height": WAVE_HEIGHT,
        "speed_height": SPEED_HEIGHT,
        "heard": _wave(heard),
        "voice": _wave(voice),
        "speed": _speed(witness.positions, mouth.began_s),
        "said": [(at_s - mouth.began_s, sentence) for at_s, sentence in witness.said],
        "states": [(at_s - mouth.began_s, name) for at_s, name, _ in witness.states if at_s > mouth.began_s],
    }
    (folder / PAGE).write_text(render("talk.html.j2", **content))


def _on_axis(pieces: list[tuple[float, np.ndarray]], began_s: float, length: int) -> np.ndarray:
    """The robot's voice (length,): its pieces follow each other, and begin where the first of a sentence came."""
    voice = np.zeros(length, np.float32)
    at = 0
    for came_s, samples in pieces:
        at = max(at, int((came_s - began_s) * RATE_HZ))
        part = voice[at : at + len(samples)]
        part += samples[: len(part)]
        at += len(samples)
    return voice


def _wave(samples: np.ndarray) -> str:
    """SVG path around the samples: for each pixel the loudest."""
    size = RATE_HZ // PIXELS_A_SECOND
    count = max(1, len(samples) // size)
    loud = np.abs(np.resize(samples, count * size)).reshape(count, size).max(1)
    half = WAVE_HEIGHT / 2
    above = [f"{x},{half - half * min(1.0, value):.1f}" for x, value in enumerate(loud)]
    below = [f"{x},{half + half * min(1.0, value):.1f}" for x, value in reversed(list(enumerate(loud)))]
    return "M" + " L".join([*above, *below]) + " Z"


def _speed(positions: list[tuple[float, float, float, float]], began_s: float) -> str:
    """SVG points of the tool's speed."""
    if len(positions) < 3:
        return ""
    values = np.array(positions)
    time_s = values[:, 0] - began_s
    speed = np.linalg.norm(np.diff(values[:, 1:], axis=0), axis=1) / np.maximum(np.diff(time_s), 1e-3)
    # In lockstep nothing is heard of an arm that stands.
    pauses = np.flatnonzero(np.diff(time_s) > PAUSE_S)
    ends = np.concatenate([time_s[pauses] + 0.02, time_s[pauses + 1] - 0.02])
    order = np.argsort(np.concatenate([time_s[1:], ends]), kind="stable")
    time_s = np.concatenate([time_s[1:], ends])[order]
    speed = np.concatenate([speed, np.zeros(len(ends))])[order]
    points = [
        f"{at_s * PIXELS_A_SECOND:.1f},{SPEED_HEIGHT * (1 - min(1.0, value / FASTEST_M_S)):.1f}"
        for at_s, value in zip(time_s, speed, strict=True)
        if at_s >= 0
    ]
    return " ".join(points)
