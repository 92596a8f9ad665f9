"""The policy node with a policy that circles and can be told to fail; run in its place by the fault campaign."""

from __future__ import annotations

from std_msgs.msg import String

from deer_policies.errors import DeerError
from deer_policies.interfaces import Budget, Policy
from deer_ros.faults.circling_policy import CirclingPolicy
from deer_ros.nodes.policy_loading import load_named
from deer_ros.nodes.policy_node import PolicyNode
from deer_ros.process import run

TROUBLE = "fault/policy"
"""Topic (std_msgs/String) with the trouble that the policy has from now on."""


class FaultyPolicyNode(PolicyNode):
    """The real node; only what it loads is another policy."""

    def __init__(self) -> None:
        self._circling: list[CirclingPolicy] = []
        super().__init__(self._load_circling)
        self.create_subscription(String, TROUBLE, self._on_trouble, 10)

    def _load_circling(
        self, name: str, device: str, threads: int, precision: str, reuse_views_below: float, budget: Budget | None
    ) -> Policy:
        policy = CirclingPolicy(load_named(name, device, threads, precision, reuse_views_below, budget))
        self._circling = [policy]
        return policy

    def _on_trouble(self, message: String) -> None:
        try:
            for policy in self._circling:
                policy.trouble(message.data)
        except DeerError as error:
            self.get_logger().error(str(error))


def main() -> int:
    """Runs the node as a process."""
    return run(FaultyPolicyNode)


if __name__ == "__main__":
    raise SystemExit(main())
