"""The supervisor node: brings up the managed nodes under `ros2 launch`, and ends when they can not go on."""

from __future__ import annotations

import sys

from rclpy.node import Node

from deer_ros import parameters
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.process import run
from deer_ros.supervision import SupervisionSettings, Supervisor

FAILED = 3
"""Exit status after a failure; whoever started the bring-up stops the other processes then."""


class SupervisorNode(Node):
    """Hosts a `Supervisor`; its end is the end of the process, since nothing must go on without it."""

    def __init__(self) -> None:
        super().__init__("supervisor")
        settings = SupervisionSettings(
            parameters.names(self, "managed_nodes", ("safety", "policy"), "managed nodes in the order of bringing up"),
            parameters.number(self, "timeout_s", 120.0, 0.1, 3600.0, "for each node to appear, and each transition"),
            parameters.number(
                self, "safety_silence_s", 1.0, 0.3, 60.0, "without word of the safety node for so long, all end"
            ),
        )
        self._supervisor = Supervisor(self, settings, self._on_up, self._on_failure)
        DiagnosticsPublisher(self, self._health)

    def _on_up(self) -> None:
        self.get_logger().info("all nodes are active")

    def _on_failure(self, reason: str, _: str) -> None:
        self.get_logger().fatal(reason)
        self.context.try_shutdown()

    @property
    def status(self) -> int:
        """The exit status of the process."""
        return FAILED if self._supervisor.failure else 0

    def _health(self) -> Health:
        waiting = "" if self._supervisor.up else "not all nodes are active yet"
        return Health(self._supervisor.failure or waiting, bool(self._supervisor.failure))


def main() -> int:
    """Runs the node as a process."""
    nodes: list[SupervisorNode] = []

    def make() -> SupervisorNode:
        nodes.append(SupervisorNode())
        return nodes[0]

    return run(make) or (nodes[0].status if nodes else 0)


if __name__ == "__main__":
    sys.exit(main())
