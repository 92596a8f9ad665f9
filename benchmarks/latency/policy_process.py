"""The policy node with a trace: when a frame is complete, and when the model begins and ends with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_policies.interfaces import ActionChunk, Budget, ExitReport, Observation, Policy, PolicyInfo
from deer_ros.nodes.frame_input import ReceivedFrame
from deer_ros.nodes.policy_loading import load_named
from deer_ros.nodes.policy_node import PolicyNode
from deer_ros.process import run
from latency.trace import Trace

NONE = "none"
"""Name of the policy that answers at once, so that what is left is the overhead."""


class InstantPolicy:
    """Asked about every frame, answers without a look at it: slowly to and fro."""

    def __init__(self) -> None:
        self.info = PolicyInfo(NONE, (0,))
        self.budget = Budget()

    def set_budget(self, budget: Budget) -> None:
        """There is nothing to save."""
        self.budget = budget

    def initial_state(self) -> int:
        """The number of steps so far."""
        return 0

    def step(self, observation: Observation, state: int) -> tuple[ActionChunk, int, ExitReport]:
        """A small motion along x."""
        values = np.array([[0.1 * np.sin(state / 10), 0, 0, 0, 0, 0, 1]], np.float32)
        return ActionChunk(values), state + 1, ExitReport(0, 0, (), (1.0,), 0.0, 0.0, 0.0, 0.0, 0.0)


class TracedPolicy:
    """A policy whose steps are noted."""

    def __init__(self, policy: Policy, trace: Trace) -> None:
        self._policy = policy
        self._trace = trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def step(self, observation: Observation, state: Any) -> tuple[ActionChunk, Any, ExitReport]:
        """A step of the policy; warming up is a frame of time 0."""
        frame_us = round(observation.time_s * 1e6)
        self._trace.note("began", frame_us)
        made = self._policy.step(observation, state)
        self._trace.note("ended", frame_us)
        return made


class TracedPolicyNode(PolicyNode):
    """The node as it is, with notes beside it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        super().__init__(self._load_traced)

    def _load_traced(self, name: str, *options: Any) -> TracedPolicy:
        return TracedPolicy(InstantPolicy() if name == NONE else load_named(name, *options), self._trace)

    def _on_frame(self, received: ReceivedFrame) -> None:
        self._trace.note("framed", received.frame.stamp_ns // 1000)
        super()._on_frame(received)


def main() -> int:
    """Runs the node as a process and writes its trace."""
    trace = Trace()
    try:
        return run(lambda: TracedPolicyNode(trace))
    finally:
        trace.write("policy")


if __name__ == "__main__":
    raise SystemExit(main())
