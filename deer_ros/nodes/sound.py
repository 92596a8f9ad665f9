"""Sound on topics: pieces of samples as messages, and messages as one gapless stream."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from deer_msgs.msg import AudioChunk

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, from_pcm, to_pcm

LONGEST_GAP_S = 1.0
"""After a longer one, the stream begins anew."""


def chunk_message(samples: np.ndarray, first_sample: int, stamp: Time) -> AudioChunk:
    """Samples (n,) float32 as a message."""
    message = AudioChunk(sample_rate_hz=RATE_HZ, first_sample=first_sample)
    message.header.stamp = stamp
    data = array("h")
    data.frombytes(to_pcm(samples).tobytes())
    message.samples = data
    return message


class SoundStream:
    """Joins messages; what was lost between two is silence.

    Attributes:
        begun: how often it began: with the first message, and after a source's restart or a long gap.
        lost: samples that never came.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.lost = 0
        self._next = -1

    def push(self, message: Any) -> np.ndarray:
        """The samples (n,) float32 that come next.

        Raises:
            ConfigError: if the sound is not of 16 kHz.
        """
        if message.sample_rate_hz != RATE_HZ:
            raise ConfigError(
                f"sound comes with {message.sample_rate_hz} Hz; it must have {RATE_HZ}, as microphone_node gives it"
            )
        samples = from_pcm(np.asarray(message.samples, np.int16))
        missing = int(message.first_sample) - self._next
        if self._next < 0 or not 0 <= missing <= LONGEST_GAP_S * RATE_HZ:
            self.begun += 1
            missing = 0
        self._next = int(message.first_sample) + len(samples)
        self.lost += missing
        return np.concatenate([np.zeros(missing, np.float32), samples]) if missing else samples
