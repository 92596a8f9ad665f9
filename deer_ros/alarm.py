"""Calls back at given moments on a node's executor, by one timer that is set anew each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType

if TYPE_CHECKING:
    from rclpy.node import Node

_SOONEST_NS = 1000


class Alarm:
    """Rings once for each `set`; to be used on the executor's thread.

    Args:
        node: whose executor it rings on.
        ring: what is called.
    """

    def __init__(self, node: Node, ring: Callable[[], None]) -> None:
        self._node = node
        self._ring = ring
        self._timer = node.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def set(self, when_s: float | None) -> None:
        """Lets it ring at a time of `time.monotonic`, at once if that is past, and not at the time set before.

        None: not at all.
        """
        if when_s is None:
            self._timer.cancel()
            return
        self._timer.timer_period_ns = max(_SOONEST_NS, round((when_s - time.monotonic()) * 1e9))
        self._timer.reset()

    def close(self) -> None:
        """Never rings again."""
        self._node.destroy_timer(self._timer)

    def _on_timer(self) -> None:
        self._timer.cancel()
        self._ring()
