"""The service `set_budget`: changes the policy's budget between two steps."""

from __future__ import annotations

import traceback
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from deer_msgs.srv import SetBudget
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future

from deer_policies.errors import DeerError
from deer_policies.interfaces import Budget
from deer_ros import graph
from deer_ros.control.policy_runner import PolicyRunner
from deer_ros.inbox import ExecutorInbox

if TYPE_CHECKING:
    from rclpy.node import Node


class BudgetServer:
    """Waits for the model's thread without holding up the executor: it has a callback group of its own, since the group
    of a callback that waits runs nothing else."""

    def __init__(self, node: Node, runner: PolicyRunner, inbox: ExecutorInbox) -> None:
        self._node = node
        self._runner = runner
        self._inbox = inbox
        self._service = node.create_service(
            SetBudget, graph.SET_BUDGET, self._on_request, callback_group=MutuallyExclusiveCallbackGroup()
        )

    def close(self) -> None:
        """Ends the service."""
        self._node.destroy_service(self._service)

    async def _on_request(self, request: SetBudget.Request, response: SetBudget.Response) -> SetBudget.Response:
        changed: Future = Future()
        try:
            budget = Budget(**{item.name: getattr(request, item.name) or None for item in fields(Budget)})
            future = self._runner.set_budget(budget)
            future.add_done_callback(lambda _: self._inbox.post(partial(changed.set_result, None)))
            await changed
            future.result()
        except DeerError as error:
            response.message = str(error)
            self._node.get_logger().warning(f"budget refused: {error}")
        except Exception as error:
            response.message = f"the policy failed: {type(error).__name__}: {error}"
            self._node.get_logger().error(f"budget refused:\n{traceback.format_exc()}")
        else:
            response.accepted = True
            self._node.get_logger().info(f"budget: {budget}")
        return response
