"""SVOX Pico: tiny and dated, understood well, on any processor (Apache-2.0)."""

from __future__ import annotations

import numpy as np

from deer_policies.speech.audio import from_pcm


class Pico:
    """British and American English; the other voices are their languages' sounds, which here read English text."""

    voices: tuple[str, ...] = ("en-GB", "en-US")

    def __init__(self) -> None:
        from py_nanotts import NanoTTS

        self._engine = NanoTTS()

    def say(self, text: str, voice: str = "en-GB", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`."""
        return from_pcm(np.frombuffer(self._engine.speak(text, voice=voice, speed=speed), "<i2"))
