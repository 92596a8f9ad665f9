"""Microphones and loudspeakers of the machine, by PortAudio (python-sounddevice)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, from_pcm, to_pcm

REMEDY = "`python -m sounddevice` lists the devices"


def library() -> Any:
    """Raises ConfigError where PortAudio or its Python side is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise ConfigError("sound devices need sounddevice: pip install 'deer_ros[speech]'") from error
    except OSError as error:
        raise ConfigError(
            f"PortAudio is not installed ({error}); on Debian and Ubuntu: apt install libportaudio2"
        ) from error
    return sounddevice


def microphone(device: str, chunk: int, heard: Callable[[np.ndarray, bool], None]) -> Callable[[], None]:
    """Opens a microphone; returns what closes it.

    Args:
        device: part of its name; '' is the system's choice.
        chunk: samples of a piece.
        heard: called on a thread of PortAudio with each piece (chunk,) float32 at 16 kHz, and whether some were lost.

    Raises:
        ConfigError: if there is none.
    """
    sounddevice = library()

    def take(data: Any, frames: int, times: Any, status: Any) -> None:
        heard(from_pcm(np.frombuffer(bytes(data), np.int16)), bool(status.input_overflow))

    try:
        stream = sounddevice.RawInputStream(
            samplerate=RATE_HZ, channels=1, dtype="int16", blocksize=chunk, device=device or None, callback=take
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(f"the microphone can't be opened: {error}; {REMEDY}, and source: file needs none") from error
    return lambda: stream.close()


def loudspeaker() -> tuple[Callable[[np.ndarray], None], Callable[[], None]]:
    """Opens the loudspeaker; returns what plays a piece (n,) float32 at 16 kHz, waiting for room, and what closes it.

    Raises:
        ConfigError: if there is none.
    """
    sounddevice = library()
    try:
        stream = sounddevice.RawOutputStream(samplerate=RATE_HZ, channels=1, dtype="int16")
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(
            f"the loudspeaker can't be opened: {error}; {REMEDY}, and output: topic needs none"
        ) from error
    return lambda piece: stream.write(to_pcm(piece).tobytes()), lambda: stream.close()
