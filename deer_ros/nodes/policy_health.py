"""What the policy node tells about its health: values for /diagnostics, troubles in words, and a log of their edges."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from deer_policies.interfaces import Budget
from deer_ros.control.edges import Edges
from deer_ros.control.goal import Goal
from deer_ros.control.policy_runner import PolicyRunner
from deer_ros.control.process_memory import gpu_mib, resident_mib
from deer_ros.control.rate_meter import RateMeter
from deer_ros.control.step_record import StepRecord
from deer_ros.diagnostics import Health

if TYPE_CHECKING:
    from rclpy.node import Node

LOGGED = ("frames dropped", "frames without an action", "model too slow")
"""Troubles that this file logs; the others are logged where they are found."""


@dataclass(frozen=True)
class Situation:
    """What the node is at.

    Attributes:
        active: whether it follows instructions.
        goal: in progress, if there is one.
        model_trouble: why the model counts as failed, in words; empty while it answers.
        frame_trouble: what was wrong with the newest frame, in words.
        frames: counts those that could be used.
        dropped: frames and messages that could not be used, by reason.
    """

    active: bool
    goal: Goal | None
    model_trouble: str
    frame_trouble: str
    frames: RateMeter
    dropped: Mapping[str, int]


class PolicyHealth:
    """Puts together one report after the other; it tells what is new since the one before.

    Args:
        node: whose log gets the troubles.
        record: of the steps.
        rate_hz: control rate.
    """

    def __init__(self, node: Node, record: StepRecord, rate_hz: float) -> None:
        self._node = node
        self._record = record
        self._rate_hz = rate_hz
        self._edges = Edges()
        self._missed = 0
        self._dropped: Counter[str] = Counter()

    def report(self, runner: PolicyRunner, now: Situation) -> Health:
        """The node's health; logs those of `LOGGED` when each begins and when it is over."""
        troubles = self._troubles(runner, now)
        logged = {name: words for name, words in troubles.items() if name in LOGGED}
        begun, over = self._edges.changes(logged, time.monotonic())
        for words in begun:
            self._node.get_logger().warning(words)
        for name in over:
            self._node.get_logger().info(f"over: {name}")
        if not now.active:
            troubles["inactive"] = "not active"
        return Health("; ".join(troubles.values()), bool(now.model_trouble), self._values(runner, now))

    def _troubles(self, runner: PolicyRunner, now: Situation) -> dict[str, str]:
        """Words by name; counts are of what came since the last report."""
        missed, self._missed = self._record.missed - self._missed, self._record.missed
        dropped, self._dropped = Counter(now.dropped) - self._dropped, Counter(now.dropped)
        lost = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        latency_ms = self._record.latency_ms(50)
        slow = missed > 0 and latency_ms and latency_ms[0] > 1e3 / self._rate_hz
        found = {
            "model without an answer": now.model_trouble,
            "frames unusable": now.frame_trouble,
            "frames dropped": f"dropped: {lost}" if lost else "",
            "frames without an action": f"{missed} frames had no action before the next one came" if missed else "",
            "model too slow": f"the model is too slow: half of its steps take more than {latency_ms[0]:.3g} ms, and a "
            f"control step has {1e3 / self._rate_hz:.3g}; a budget (set_budget latency_ms) makes it faster"
            if slow
            else "",
            "exits given up": runner.reduced,
        }
        return {name: words for name, words in found.items() if words}

    def _values(self, runner: PolicyRunner, now: Situation) -> dict[str, object]:
        record, goal, now_s = self._record, now.goal, time.monotonic()
        age_s = now.frames.age_s(now_s)
        values: dict[str, object] = {
            "policy": runner.info.name,
            "active": now.active,
            "instruction": goal.instruction if goal else "",
            "steps": goal.steps if goal else 0,
            "frames": now.frames.count,
            "frames rate Hz": round(now.frames.rate_hz(now_s), 2),
            "newest frame age s": "never" if age_s is None else round(age_s, 3),
            "actions": record.actions.count,
            "actions rate Hz": round(record.actions.rate_hz(now_s), 2),
            "actions left in chunk": goal.queue.left if goal else 0,
            "requests waiting": runner.waiting,
            "model at one step s": round(runner.busy_s, 3),
            "frames without action in time": record.missed,
            "steps longer than control period": record.long_steps,
            "frames the model was too slow for": runner.replaced,
        }
        values |= {f"dropped: {reason}": count for reason, count in sorted(now.dropped.items())}
        values |= {
            f"latency {name} ms": round(value, 2)
            for name, value in zip(("p50", "p99"), record.latency_ms(50, 99), strict=False)
        }
        values |= {f"share of exit {index}": round(share, 3) for index, share in record.exit_shares().items()}
        return values | _memory() | _limits(runner)


def _memory() -> dict[str, object]:
    found = {"resident memory MiB": resident_mib(), "GPU memory MiB": gpu_mib()}
    return {name: round(value, 1) for name, value in found.items() if value is not None}


def _limits(runner: PolicyRunner) -> dict[str, object]:
    budget = {f"budget {item.name}": getattr(runner.budget, item.name) or "no limit" for item in fields(Budget)}
    return {**budget, "reduced": runner.reduced or "no"}
