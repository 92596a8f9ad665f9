"""Hands work from other threads to a node's executor, so that only one thread ever touches the node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node


class ExecutorInbox:
    """`post` may be called from any thread; what is posted runs on the executor's, in order."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._posted: deque[Callable[[], None]] = deque()
        self._guard = node.create_guard_condition(self._run)

    def post(self, function: Callable[[], None]) -> None:
        """Queues `function`."""
        self._posted.append(function)
        self._guard.trigger()

    def close(self) -> None:
        """Forgets what has not run."""
        self._posted.clear()
        self._node.destroy_guard_condition(self._guard)

    def _run(self) -> None:
        while self._posted:
            self._posted.popleft()()
