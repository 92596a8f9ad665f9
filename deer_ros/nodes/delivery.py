"""Carries messages over an imperfect link: calls that are made later, or never, on the node's executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deer_ros.alarm import Alarm
from deer_ros.control.imperfect_link import ImperfectLink, LinkQuality

if TYPE_CHECKING:
    from rclpy.node import Node


class Delivery:
    """Calls at once over a perfect link.

    Args:
        node: whose executor calls.
        seed: of what the link draws.
    """

    def __init__(self, node: Node, seed: int) -> None:
        self._link: ImperfectLink[Callable[[], None]] = ImperfectLink(seed)
        self._alarm = Alarm(node, self._deliver)
        self._shut = False

    @property
    def lost(self) -> int:
        """How many calls were lost."""
        return self._link.lost

    def change(self, quality: LinkQuality) -> None:
        """Makes the link better or worse."""
        self._link.change(quality, time.monotonic())
        self._alarm.set(self._link.next_s)

    def send(self, call: Callable[[], None]) -> None:
        """Makes the call when the link has carried it, after all that were sent before; never if the link is shut."""
        if self._shut:
            return
        if self._link.quality.perfect and self._link.next_s is None:
            call()
            return
        self._link.send(call, time.monotonic())
        self._alarm.set(self._link.next_s)

    def shut(self) -> None:
        """Forgets the calls that are under way and takes no more."""
        self._shut = True
        self.clear()

    def open(self) -> None:
        """Takes calls again."""
        self._shut = False

    def clear(self) -> None:
        """Forgets the calls that are under way."""
        self._link.clear()
        self._alarm.set(None)

    def close(self) -> None:
        """Forgets them for good."""
        self.clear()
        self._alarm.close()

    def _deliver(self) -> None:
        for call in self._link.due(time.monotonic()):
            call()
        self._alarm.set(self._link.next_s)
