"""Tells when a goal begins and how it ends, and by which policy with which settings it is followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from deer_msgs.msg import GoalStatus

from deer_policies.interfaces import PolicyInfo
from deer_ros import graph
from deer_ros.control.goal import Goal
from deer_ros.conversions import ns_to_stamp
from deer_ros.quality import LATCHED

if TYPE_CHECKING:
    from rclpy.node import Node

SETTINGS = ("policy", "device", "threads", "precision", "reuse_views_below")
"""Parameters of the policy node which actions follow from; the message's fields have their names."""


class GoalPublisher:
    """Owns the topic policy/goal, whose last message a late subscriber gets at once."""

    def __init__(self, node: Node, info: PolicyInfo) -> None:
        self._node = node
        self._weights_sha256 = info.weights_sha256
        self._publisher = node.create_publisher(GoalStatus, graph.POLICY_GOAL, LATCHED)

    def tell(self, goal: Goal, newest_ns: int) -> None:
        """Publishes the goal as it is now; `newest_ns` is the stamp of the newest frame, 0 if there was none."""
        settings: dict[str, Any] = {name: self._node.get_parameter(name).value for name in SETTINGS}
        message = GoalStatus(
            goal_id=np.frombuffer(goal.goal_id, np.uint8),
            outcome=GoalStatus.RUNNING if goal.outcome is None else int(goal.outcome),
            reason=goal.reason,
            instruction=goal.instruction,
            max_steps=goal.max_steps,
            steps=goal.steps,
            weights_sha256=self._weights_sha256,
            **settings,
        )
        message.header.stamp = ns_to_stamp(newest_ns)
        self._publisher.publish(message)

    def close(self) -> None:
        """Gives back the publisher."""
        self._node.destroy_publisher(self._publisher)
