"""What the last steps were like: rates, exits taken, latencies, and frames that got no action in time."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

from deer_ros.control.rate_meter import RateMeter

STEPS_KEPT = 300
"""Steps of the policy that latencies and shares of exits are of: ten seconds at 30 Hz."""


class StepRecord:
    """Times are of one monotonic clock.

    A frame is due an action before the next one comes: that holds at any rate of the frames, and in a simulation that
    waits for the action nothing is ever late.

    Args:
        period_s: one control step; a step of the policy that takes longer is counted.

    Attributes:
        actions: that went out as an answer to a frame.
        missed: frames of a goal that had no action when the next one came.
        stale: frames of a goal that were too old when the model came to them.
        long_steps: steps of the policy that took longer than the control period.
    """

    def __init__(self, period_s: float) -> None:
        self.actions = RateMeter()
        self.missed = 0
        self.stale = 0
        self.long_steps = 0
        self._period_s = period_s
        self._due = False
        self._steps: deque[tuple[int, float]] = deque(maxlen=STEPS_KEPT)

    def due(self) -> None:
        """A new frame came in that is due an action."""
        self.missed += self._due
        self._due = True

    def acted(self, now_s: float) -> None:
        """The action that answers the frame went out."""
        self.actions.note(now_s)
        self._due = False

    def ended(self) -> None:
        """The goal has ended: no action is due any more."""
        self._due = False

    def step(self, exit_index: int, latency_ms: float) -> None:
        """A step of the policy, which took that exit and so long."""
        self.long_steps += latency_ms > 1e3 * self._period_s
        self._steps.append((exit_index, latency_ms))

    def latency_ms(self, *percentiles: float) -> tuple[float, ...]:
        """Of the steps kept; nothing if there are none."""
        if not self._steps:
            return ()
        return tuple(float(value) for value in np.percentile([latency for _, latency in self._steps], percentiles))

    def exit_shares(self) -> dict[int, float]:
        """Share of the steps kept that took each exit, shallowest first; exits that were not taken are left out."""
        counts = Counter(index for index, _ in self._steps)
        return {index: counts[index] / len(self._steps) for index in sorted(counts)}
