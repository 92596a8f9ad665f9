"""Hibari: a small neural engine with one voice in its package (Apache-2.0)."""

from __future__ import annotations

import numpy as np

from deer_policies.speech.audio import resampled


class Hibari:
    """The voice 'heart'. The same text gives the same sound."""

    voices: tuple[str, ...] = ("heart",)

    def __init__(self) -> None:
        from hibari import Hibari as Engine

        self._engine = Engine(voice="heart")

    def say(self, text: str, voice: str = "heart", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`."""
        return resampled(np.asarray(self._engine(text, speed=speed, seed=0), np.float32), self._engine.sample_rate)
