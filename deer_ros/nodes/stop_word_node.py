"""The stop word node: hears 'stop' before any other model and tells the safety node, in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path

from deer_msgs.msg import AudioChunk, StopWord
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Bool

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.spotting.spotter import Spotter
from deer_ros import graph, parameters
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.sound import SoundStream
from deer_ros.nodes.stop_request import StopRequest
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED, SOUND

HEARTBEAT_S = 0.2
DEAF_S = 0.5
"""Without sound for so long, nobody can stop the robot by voice."""


class StopWordNode(ManagedNode):
    """Listens always, whatever the others do; says on `voice/hearing` whether it does."""

    def __init__(self) -> None:
        super().__init__("stop_word")
        self._checkpoint = parameters.text(self, "checkpoint", "", "network for the stop word; empty: the bundled one")
        self._threshold = parameters.number(
            self, "threshold", 0.0, 0.0, 0.999, "least probability of a stop; 0: the checkpoint's own"
        )
        self._spotter: Spotter | None = None
        self._stream = SoundStream()
        self._begun = 0
        self._samples = 0
        self._heard_s = -float("inf")
        self._stops = 0
        self._trouble = ""
        self._longest_ms = 0.0
        self._request = StopRequest(self)
        self._publisher = self.create_publisher(StopWord, graph.STOP_WORD, COMMANDS)
        self._hearing = self.create_publisher(Bool, graph.HEARING, LATCHED)
        self.create_timer(HEARTBEAT_S, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Loads the network."""
        path = Path(self._checkpoint) if self._checkpoint else None
        self._spotter = Spotter.load(path, self._threshold or None)
        subscription = self.create_subscription(AudioChunk, graph.AUDIO_INPUT, self._on_sound, SOUND)
        self._releases.append(lambda: self.destroy_subscription(subscription))

    def halt(self, reason: str) -> None:
        """Nothing is heard from now on."""
        self._beat()

    def _on_sound(self, message: AudioChunk) -> None:
        spotter = self._spotter
        if not self.active or spotter is None:
            return
        began_s = time.monotonic()
        try:
            samples = self._stream.push(message)
        except ConfigError as error:
            if str(error) != self._trouble:
                self.get_logger().error(str(error))
            self._trouble = str(error)
            return
        self._trouble, self._heard_s = "", began_s
        if self._begun != self._stream.begun:
            self._begun = self._stream.begun
            spotter.reset()
        stop = spotter.push(samples)
        self._longest_ms = max(self._longest_ms, 1e3 * (time.monotonic() - began_s))
        if stop is not None:
            self._stop(int(message.first_sample) + len(message.samples), stop.probability)

    def _stop(self, sample: int, probability: float) -> None:
        self._stops += 1
        self._request.ask()
        heard = StopWord(sample=sample, probability=probability)
        heard.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(heard)
        self.get_logger().warning(f"heard the stop word ({probability:.2f})")

    def _beat(self) -> None:
        self._hearing.publish(Bool(data=self.active and not self._deaf()))

    def _deaf(self) -> bool:
        return time.monotonic() - self._heard_s > DEAF_S

    def _health(self) -> Health:
        deaf = f"no sound on {graph.AUDIO_INPUT} for {DEAF_S:g} s" if self.active and self._deaf() else ""
        unheard = "the safety node does not answer" if self._request.unanswered else ""
        values = {
            "stops": self._stops,
            "seconds lost": round(self._stream.lost / RATE_HZ, 2),
            "longest step ms": round(self._longest_ms, 2),
        }
        self._longest_ms = 0.0
        trouble = self._trouble or unheard or deaf
        return Health(trouble, bool(trouble), values)


def main() -> int:
    """Runs the node as a process."""
    return run(StopWordNode)


if __name__ == "__main__":
    raise SystemExit(main())
