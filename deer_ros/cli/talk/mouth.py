"""A mouth in front of the robot's microphone: publishes sound in real time, and what is said when it is said."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from deer_policies.speech.audio import RATE_HZ

CHUNK = 320
"""Samples of a piece (20 ms)."""
HISS = 3e-4
"""Amplitude of the room's own noise."""


class Mouth:
    """Publishes on audio/input from its own thread until it is closed.

    Args:
        node: whose publisher it uses.
        seed: of the room's noise.

    Attributes:
        sound: all samples so far, in pieces.
        began_s: of the monotonic clock, when the first sample was heard.
    """

    def __init__(self, node: Any, seed: int) -> None:
        from deer_msgs.msg import AudioChunk

        from deer_ros import graph
        from deer_ros.quality import SOUND

        self._node = node
        self._publisher = node.create_publisher(AudioChunk, graph.AUDIO_INPUT, SOUND)
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._waiting = np.zeros(0, np.float32)
        self._stop = threading.Event()
        self.sound: list[np.ndarray] = []
        self.began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mouth", daemon=True)
        self._thread.start()

    def say(self, samples: np.ndarray) -> float:
        """Says samples (n,) float32 from now on; returns when they end, of the monotonic clock."""
        with self._lock:
            first = len(self.sound) * CHUNK + len(self._waiting)
            self._waiting = np.concatenate([self._waiting, samples])
        return self.began_s + (first + len(samples)) / RATE_HZ

    def close(self) -> None:
        """Falls silent."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from deer_ros.nodes.sound import chunk_message

        while not self._stop.is_set():
            due_s = self.began_s + (len(self.sound) + 1) * CHUNK / RATE_HZ
            time.sleep(max(0.0, due_s - time.monotonic()))
            with self._lock:
                said, self._waiting = self._waiting[:CHUNK], self._waiting[CHUNK:]
                piece = np.pad(said, (0, CHUNK - len(said)))
                piece = (piece + HISS * self._random.standard_normal(CHUNK)).astype(np.float32)
                first = len(self.sound) * CHUNK
                self.sound.append(piece)
            self._publisher.publish(chunk_message(piece, first, self._node.get_clock().now().to_msg()))
