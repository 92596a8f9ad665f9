"""Publishes what a node knows about its own health on /diagnostics, once a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType

from deer_ros import graph

if TYPE_CHECKING:
    from rclpy.node import Node

PERIOD_S = 1.0


@dataclass(frozen=True)
class Health:
    """A node's health: the trouble in words (empty: none), whether it keeps the node from its job, and some values."""

    trouble: str = ""
    failed: bool = False
    values: dict[str, Any] = field(default_factory=dict)


class DiagnosticsPublisher:
    """Asks `collect` each second of real time, however fast simulated time runs."""

    def __init__(self, node: Node, collect: Callable[[], Health]) -> None:
        self._node = node
        self._collect = collect
        self._publisher = node.create_publisher(DiagnosticArray, graph.DIAGNOSTICS, 10)
        node.create_timer(PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        """Publishes now."""
        health = self._collect()
        level = DiagnosticStatus.ERROR if health.failed else DiagnosticStatus.WARN
        status = DiagnosticStatus(
            level=level if health.trouble else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name(),
            message=health.trouble or "ok",
            hardware_id="deer_ros",
            values=[KeyValue(key=key, value=str(value)) for key, value in health.values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
