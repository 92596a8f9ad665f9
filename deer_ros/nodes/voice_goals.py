"""What was asked for by voice is carried out: instructions one after the other, held, resumed or given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deer_msgs.action import FollowInstruction
from deer_msgs.srv import BeginSubtask
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType

from deer_ros import graph

if TYPE_CHECKING:
    from rclpy.node import Node

JUDGE_S = 1.0
"""For a simulator to take note of a task."""


@dataclass(frozen=True)
class Order:
    """A task, and the sentence that the policy is given for it."""

    task: str
    instruction: str


class VoiceGoals:
    """A client of the policy node's action; everything runs on the node's executor.

    Args:
        node: that it belongs to.
        done: called with each order that was carried out, and how many are left.
        failed: called with an order and why it ended otherwise; what was to follow it is dropped.

    Attributes:
        orders: that are being carried out, the present one first.
        held: those that were paused.
    """

    def __init__(self, node: Node, done: Callable[[Order, int], None], failed: Callable[[Order, str], None]) -> None:
        self._node = node
        self._done = done
        self._failed = failed
        self._client: Any = ActionClient(node, FollowInstruction, graph.FOLLOW_INSTRUCTION)
        self._judge: Any = node.create_client(BeginSubtask, graph.BEGIN_SUBTASK)
        self._handle: Any = None
        # Answers to goals that were left meanwhile are told by it from those that count.
        self._number = self._sent = 0
        self._late: Any = None
        self.orders: list[Order] = []
        self.held: list[Order] = []

    @property
    def ready(self) -> bool:
        """Whether a policy node is there."""
        return bool(self._client.server_is_ready())

    def begin(self, orders: Sequence[Order]) -> None:
        """Carries them out, instead of what is under way."""
        self.give_up()
        self.orders = list(orders)
        self._next()

    def give_up(self) -> None:
        """Cancels what is under way and forgets the rest."""
        self._number += 1
        self._forget_timer()
        self.orders, self.held = [], []
        if self._handle is not None:
            self._handle.cancel_goal_async()
            self._handle = None

    def pause(self) -> bool:
        """Holds still; `resume` goes on with the same orders. False if nothing is under way."""
        orders = self.orders
        if not orders:
            return False
        self.give_up()
        self.held = orders
        return True

    def resume(self) -> None:
        """Goes on after a pause."""
        self.begin(self.held)

    def _next(self) -> None:
        """The next order. A simulator judges by itself whether a task is done, if it is told which one begins."""
        self._number += 1
        number = self._number
        if not self._judge.service_is_ready():
            self._send(number)
            return
        self._judge.call_async(BeginSubtask.Request(task=self.orders[0].task)).add_done_callback(
            lambda _: self._send(number)
        )
        # ROS 2 may lose the answer: the policy goes to work without it then.
        self._late = self._node.create_timer(
            JUDGE_S, lambda: self._send(number), clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _send(self, number: int) -> None:
        """Sends the order to the policy, once."""
        if number != self._number or self._sent == number:
            return
        self._forget_timer()
        self._sent = number
        goal = FollowInstruction.Goal(instruction=self.orders[0].instruction)
        self._client.send_goal_async(goal).add_done_callback(lambda future: self._accepted(number, future.result()))

    def _forget_timer(self) -> None:
        if self._late is not None:
            self._node.destroy_timer(self._late)
            self._late = None

    def _accepted(self, number: int, handle: Any) -> None:
        if number != self._number:
            if handle.accepted:
                handle.cancel_goal_async()
            return
        if not handle.accepted:
            self._end("the policy node does not take it")
            return
        self._handle = handle
        handle.get_result_async().add_done_callback(lambda future: self._ended(number, future.result().result))

    def _ended(self, number: int, result: Any) -> None:
        if number != self._number:
            return
        self._handle = None
        if result.outcome != FollowInstruction.Result.DONE:
            self._end(result.reason)
            return
        order, self.orders = self.orders[0], self.orders[1:]
        left = len(self.orders)
        self._done(order, left)
        # It may have been given up by what it told.
        if left and number == self._number:
            self._next()

    def _end(self, reason: str) -> None:
        order, self.orders = self.orders[0], []
        self._failed(order, reason)
