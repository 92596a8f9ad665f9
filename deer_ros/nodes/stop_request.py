"""Asks the safety node to stop, again and again until it has answered, as ROS 2 may lose a request or its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from deer_ros import graph

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.task import Future

REPEAT_S = 0.05
"""Without an answer for so long, it is asked again."""


class StopRequest:
    """A client of the safety node's stop.

    Args:
        node: that the client belongs to.
    """

    def __init__(self, node: Node) -> None:
        self._client: Any = node.create_client(Trigger, graph.SAFETY_STOP)
        self._waiting: Future | None = None
        self._asked_s = 0.0
        node.create_timer(REPEAT_S, self._insist, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def unanswered(self) -> bool:
        """Whether a stop was asked for that the safety node has not confirmed."""
        return self._waiting is not None

    def ask(self) -> None:
        """Asks for a stop."""
        self._asked_s = time.monotonic()
        self._waiting = self._client.call_async(Trigger.Request())

    def _insist(self) -> None:
        if self._waiting is None:
            return
        if self._waiting.done():
            self._waiting = None
        elif time.monotonic() - self._asked_s >= REPEAT_S:
            self._waiting.cancel()
            self.ask()
