"""The protocol of a speech-to-text engine, what it returns, and the engines by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deer_policies.errors import ConfigError


@dataclass(frozen=True)
class Alternative:
    """One reading of an utterance.

    Attributes:
        text: lower case, without punctuation.
        probability: among the alternatives, with what the engine leaves to 'none of them'; 0 to 1.
    """

    text: str
    probability: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        alternatives: the likeliest first; none if nothing was said.
        confidence: that the best one is right, 0 to 1.
        engine: that heard it.
    """

    alternatives: tuple[Alternative, ...]
    confidence: float
    engine: str

    @property
    def text(self) -> str:
        """The likeliest reading, '' if nothing was said."""
        return self.alternatives[0].text if self.alternatives else ""


class Recogniser(Protocol):
    """Speech to text."""

    def transcribe(self, samples: np.ndarray) -> Transcript:
        """What is said in samples (n,) float32 at 16 kHz, one utterance."""
        ...


WHISPER, GRAMMAR = "whisper", "grammar"
RECOGNISERS = (WHISPER, GRAMMAR)


def make_recogniser(name: str, sentences: Sequence[str], threads: int = 1) -> Recogniser:
    """An engine, loaded.

    Args:
        name: one of RECOGNISERS.
        sentences: that are likely to be said; the grammar knows no others.
        threads: of the processor.

    Raises:
        ConfigError: if there is none of that name, or what it needs is not installed.
        CheckpointError: if its weights are not here.
    """
    if name not in RECOGNISERS:
        raise ConfigError(f"speech recogniser {name!r} is unknown; there are {', '.join(RECOGNISERS)}")
    try:
        if name == WHISPER:
            from deer_policies.speech.recognition.whisper import Whisper

            return Whisper(threads=threads)
        from deer_policies.speech.recognition.grammar import GrammarRecogniser

        return GrammarRecogniser(sentences)
    except ImportError as error:
        raise ConfigError(f"speech recogniser {name} needs {error.name}: pip install 'deer_ros[speech]'") from error
