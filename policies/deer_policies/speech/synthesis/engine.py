"""The protocol of a text-to-speech engine, and the engines by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

from deer_policies.errors import ConfigError


class Synthesiser(Protocol):
    """Makes speech of text.

    Attributes:
        voices: names of its voices.
    """

    voices: tuple[str, ...]

    def say(self, text: str, voice: str, speed: float = 1.0) -> np.ndarray:
        """Speech (n,) float32 at 16 kHz.

        Args:
            text: English.
            voice: one of `voices`.
            speed: of speaking; 1 is the voice's own.
        """
        ...


ENGINES = {
    "hibari": ("hibari", "Hibari"),
    "pico": ("pico", "Pico"),
    "kokoro": ("kokoro", "Kokoro"),
    "piper": ("piper", "Piper"),
    "espeak": ("commands", "Espeak"),
    "flite": ("commands", "Flite"),
    "festival": ("commands", "Festival"),
}
"""Module below this package and class of each."""


def make_synthesiser(name: str) -> Synthesiser:
    """An engine, loaded.

    Raises:
        ConfigError: if there is none of that name, or what it needs is not installed.
        CheckpointError: if its weights are not here.
    """
    if name not in ENGINES:
        raise ConfigError(f"speech engine {name!r} is unknown; there are {', '.join(ENGINES)}")
    module, kind = ENGINES[name]
    make: Callable[[], Synthesiser] = getattr(importlib.import_module(f"{__package__}.{module}"), kind)
    try:
        return make()
    except ImportError as error:
        raise ConfigError(f"speech engine {name} needs {error.name}: pip install 'deer_ros[speech]'") from error
