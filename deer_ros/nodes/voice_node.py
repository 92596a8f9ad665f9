"""The voice node: says what it is told to, on a topic and aloud, and never keeps anybody waiting."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable

import numpy as np
from deer_msgs.msg import AudioChunk
from std_msgs.msg import Bool, String

from deer_policies.errors import DeerError
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.synthesis.engine import ENGINES, Synthesiser, make_synthesiser
from deer_ros import graph, parameters
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.inbox import ExecutorInbox
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.port_audio import loudspeaker
from deer_ros.nodes.sound import chunk_message
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED, SOUND

DEVICE, TOPIC = "device", "topic"
MOST_WAITING = 3
"""Sentences; what comes when more are waiting takes the place of the oldest."""
CHUNK_S = 0.04


class VoiceNode(ManagedNode):
    """A thread of its own makes the speech and plays it; the executor only takes sentences and sends pieces."""

    def __init__(self) -> None:
        super().__init__("voice")
        self._output = parameters.text(self, "output", DEVICE, "where speech goes besides the topic", (DEVICE, TOPIC))
        self._engine = parameters.text(self, "engine", "hibari", "speech engine", tuple(ENGINES))
        self._voice = parameters.text(self, "voice_name", "", "a voice of the engine; empty: its first")
        self._speed = parameters.number(self, "speed", 1.0, 0.5, 2.0, "of speaking; 1 is the voice's own")
        self._publisher = self.create_publisher(AudioChunk, graph.AUDIO_OUTPUT, SOUND)
        self._speaking = self.create_publisher(Bool, graph.SPEAKING, LATCHED)
        self._inbox = ExecutorInbox(self)
        self._waiting: queue.Queue[str | None] = queue.Queue()
        self._sent = self._said = self._dropped = 0
        self._trouble = ""
        self._synthesiser: Synthesiser | None = None
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Loads the engine."""
        synthesiser = make_synthesiser(self._engine)
        voice = self._voice or synthesiser.voices[0]
        self._play: Callable[[np.ndarray], None] = _wait
        if self._output == DEVICE:
            self._play, close = loudspeaker()
            self._releases.append(close)
        synthesiser.say("ready", voice, self._speed)
        self._synthesiser = synthesiser
        subscription = self.create_subscription(String, graph.SAY, self._on_say, COMMANDS)
        self._releases.append(lambda: self.destroy_subscription(subscription))

    def start(self) -> None:
        """Speaks from now on."""
        self._waiting = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(self._waiting,), name="voice", daemon=True)
        self._thread.start()
        self._tell(False)

    def halt(self, reason: str) -> None:
        """Falls silent after the piece that is being played."""
        # The voice's thread takes from it as well.
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)

    def _on_say(self, message: String) -> None:
        if not self.active or not message.data.strip():
            return
        while self._waiting.qsize() >= MOST_WAITING:
            self._waiting.get_nowait()
            self._dropped += 1
        self._waiting.put(message.data)

    def _run(self, waiting: queue.Queue[str | None]) -> None:
        """On the voice's thread."""
        synthesiser = self._synthesiser
        assert synthesiser is not None
        voice = self._voice or synthesiser.voices[0]
        while (sentence := waiting.get()) is not None:
            try:
                samples = synthesiser.say(sentence, voice, self._speed)
                self._inbox.post(lambda: self._tell(True))
                for start in range(0, len(samples), int(CHUNK_S * RATE_HZ)):
                    if not self.active:
                        break
                    piece = samples[start : start + int(CHUNK_S * RATE_HZ)]
                    self._inbox.post(lambda piece=piece: self._send(piece))  # type: ignore[misc]
                    self._play(piece)
                self._said, self._trouble = self._said + 1, ""
            except DeerError as error:
                self._trouble = str(error)
            finally:
                self._inbox.post(lambda: self._tell(False))

    def _send(self, piece: np.ndarray) -> None:
        self._publisher.publish(chunk_message(piece, self._sent, self.get_clock().now().to_msg()))
        self._sent += len(piece)

    def _tell(self, speaking: bool) -> None:
        self._speaking.publish(Bool(data=speaking))

    def _health(self) -> Health:
        values = {"sentences": self._said, "waiting": self._waiting.qsize(), "dropped": self._dropped}
        return Health(self._trouble, False, values)


def _wait(piece: np.ndarray) -> None:
    """Takes as long as the piece lasts."""
    time.sleep(len(piece) / RATE_HZ)


def main() -> int:
    """Runs the node as a process."""
    return run(VoiceNode)


if __name__ == "__main__":
    raise SystemExit(main())
