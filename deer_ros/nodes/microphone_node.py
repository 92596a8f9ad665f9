"""The microphone node: sound of a device by PortAudio, or of a file as if it were heard, in pieces on a topic."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from deer_msgs.msg import AudioChunk
from rclpy.clock import Clock, ClockType

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, read_wav
from deer_ros import graph, parameters
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.inbox import ExecutorInbox
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.port_audio import library, microphone
from deer_ros.nodes.sound import chunk_message
from deer_ros.process import run
from deer_ros.quality import SOUND

DEVICE, FILE = "device", "file"
SILENT_S = 1.0
"""Without sound from the device for so long, it has failed."""


class MicrophoneNode(ManagedNode):
    """Publishes mono sound at 16 kHz while it is active."""

    def __init__(self) -> None:
        super().__init__("microphone")
        self._source = parameters.text(self, "source", DEVICE, "where sound comes from", (DEVICE, FILE))
        self._device = parameters.text(self, "device", "", "part of the name of a device; empty: the system's choice")
        self._file = parameters.text(self, "file", "", "WAV file to play once, as if it were heard; then silence")
        chunk_s = parameters.number(self, "chunk_s", 0.02, 0.005, 0.1, "length of a piece of sound")
        self._chunk = round(chunk_s * RATE_HZ)
        self._publisher = self.create_publisher(AudioChunk, graph.AUDIO_INPUT, SOUND)
        self._inbox = ExecutorInbox(self)
        self._sent = 0
        self._sent_s = -np.inf
        self._overflows = 0
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Reads the file, or looks for PortAudio."""
        if self._source == FILE:
            if not self._file:
                raise ConfigError("parameter source is file, and parameter file names none")
            self._samples = read_wav(Path(self._file))
        else:
            library()

    def start(self) -> None:
        """Sound comes from now on."""
        self._sent = 0
        self._sent_s = time.monotonic()
        if self._source == FILE:
            self._began_s = time.monotonic()
            self._timer = self.create_timer(
                self._chunk / RATE_HZ, self._play, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
            return
        self._close = microphone(self._device, self._chunk, self._on_device)

    def halt(self, reason: str) -> None:
        """Ends the sound."""
        if self._source == FILE:
            self.destroy_timer(self._timer)
        else:
            self._close()

    def _play(self) -> None:
        """The pieces of the file that are due."""
        due = int((time.monotonic() - self._began_s) * RATE_HZ)
        while self._sent + self._chunk <= due:
            piece = self._samples[self._sent : self._sent + self._chunk]
            self._send(np.pad(piece, (0, self._chunk - len(piece))))

    def _on_device(self, samples: np.ndarray, overflowed: bool) -> None:
        """On PortAudio's thread."""
        self._inbox.post(lambda: self._take(samples, overflowed))

    def _take(self, samples: np.ndarray, overflowed: bool) -> None:
        self._overflows += overflowed
        if self.active:
            self._send(samples)

    def _send(self, samples: np.ndarray) -> None:
        self._publisher.publish(chunk_message(samples, self._sent, self.get_clock().now().to_msg()))
        self._sent += len(samples)
        self._sent_s = time.monotonic()

    def _health(self) -> Health:
        silent = self.active and time.monotonic() - self._sent_s > SILENT_S
        trouble = f"no sound from the {self._source} for {SILENT_S:g} s" if silent else ""
        return Health(trouble, silent, {"seconds": self._sent / RATE_HZ, "overflows": self._overflows})


def main() -> int:
    """Runs the node as a process."""
    return run(MicrophoneNode)


if __name__ == "__main__":
    raise SystemExit(main())
