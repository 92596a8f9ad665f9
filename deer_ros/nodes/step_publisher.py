"""Publishes what a frame led to: what the policy was shown, the action, its report, and standstill at a goal's end."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from deer_msgs.action import FollowInstruction
from deer_msgs.msg import ExitReport as ExitReportMessage
from deer_msgs.msg import PolicyAction, PolicyInput

from deer_policies.interfaces import Budget
from deer_ros import graph
from deer_ros.control.action_queue import QueuedAction
from deer_ros.control.goal import Goal
from deer_ros.control.policy_runner import StepRequest, StepResult
from deer_ros.conversions import exit_report_to_message, ns_to_stamp
from deer_ros.quality import COMMANDS
from deer_ros.robot_frame import GRIPPER, JOINTS

if TYPE_CHECKING:
    from rclpy.node import Node


BUDGET_LIMITS = tuple(item.name for item in fields(Budget))
"""Their names in the messages as well; 0 there is no limit."""


class StepPublisher:
    """Owns the topics policy/input, policy/action and policy/exit_report."""

    def __init__(self, node: Node, base_frame: str) -> None:
        self._node = node
        self._base_frame = base_frame
        self._inputs = node.create_publisher(PolicyInput, graph.POLICY_INPUT, COMMANDS)
        self._actions = node.create_publisher(PolicyAction, graph.POLICY_ACTION, COMMANDS)
        self._reports = node.create_publisher(ExitReportMessage, graph.EXIT_REPORT, COMMANDS)
        self._last: PolicyAction | None = None

    def shown(self, request: StepRequest, result: StepResult) -> None:
        """Publishes what the policy was shown, and the budget that it acted under."""
        message = PolicyInput(goal_id=np.frombuffer(request.goal.goal_id, np.uint8))
        message.header.stamp, message.header.frame_id = ns_to_stamp(request.stamp_ns), self._base_frame
        message.gripper_stamp = ns_to_stamp(request.stamps_ns[GRIPPER])
        message.joints_stamp = ns_to_stamp(request.stamps_ns[JOINTS])
        message.proprioception = request.observation.proprioception
        for name in BUDGET_LIMITS:
            setattr(message, name, getattr(result.budget, name) or 0.0)
        self._inputs.publish(message)

    def answer(self, goal: Goal, stamp_ns: int, queued: QueuedAction) -> None:
        """Publishes the action that answers the frame of that stamp."""
        message = self._message(goal, queued.action.values)
        message.header.stamp = ns_to_stamp(stamp_ns)
        message.chunk_index = queued.index
        self._actions.publish(message)
        self._last = message

    def report(self, request: StepRequest, result: StepResult) -> FollowInstruction.Feedback:
        """Publishes the exit report of a policy step; returns feedback for the action client."""
        report = exit_report_to_message(result.report)
        report.header.stamp, report.header.frame_id = ns_to_stamp(request.stamp_ns), self._base_frame
        report.step = request.goal.steps
        report.budget_average_llm_gmac = result.budget.average_llm_gmac or 0.0
        self._reports.publish(report)
        return FollowInstruction.Feedback(
            step=report.step,
            exit_index=report.exit_index,
            exit_layer=report.exit_layer,
            distances=report.distances,
            llm_gmac=report.llm_gmac,
            full_llm_gmac=report.full_llm_gmac,
            latency_ms=report.latency_ms,
        )

    def repeat(self, stamp_ns: int) -> None:
        """Publishes the last action again if it is the answer to the frame of that stamp."""
        if self._last is not None and self._last.header.stamp == ns_to_stamp(stamp_ns):
            self._actions.publish(self._last)

    def hold(self, goal: Goal, gripper_action: float) -> None:
        """Standstill with the gripper as it is; its zero stamp answers no frame, so a simulator in lockstep waits."""
        self._last = None
        self._actions.publish(self._message(goal, np.array((0, 0, 0, 0, 0, 0, gripper_action), np.float32)))

    def close(self) -> None:
        """Gives back the publishers."""
        for publisher in (self._inputs, self._actions, self._reports):
            self._node.destroy_publisher(publisher)

    def _message(self, goal: Goal, values: np.ndarray) -> PolicyAction:
        message = PolicyAction(step=goal.steps, goal_id=np.frombuffer(goal.goal_id, np.uint8))
        message.header.frame_id = self._base_frame
        message.action = values
        return message
