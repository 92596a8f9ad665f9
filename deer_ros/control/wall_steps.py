"""Steps of a fixed period that keep up with a clock, however late one looks."""

from __future__ import annotations

import math

MOST_AT_ONCE = 15
"""Half a second at 30 Hz: what a world that stood still for longer does not make up for."""


class WallSteps:
    """Tells how many steps are due. Lateness adds nothing up: step n is due n periods after the beginning.

    Args:
        period_s: of a step.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._began_s = 0.0
        self._made = 0
        self.lost = 0

    def begin(self, now_s: float) -> None:
        """Starts counting: the first step is due one period from now."""
        self._began_s, self._made = now_s, 0

    @property
    def next_s(self) -> float:
        """When the next step is due."""
        return self._began_s + (self._made + 1) * self._period_s

    def due(self, now_s: float) -> list[float]:
        """The times of the steps that are due by now, oldest first; they count as made.

        Of more than `MOST_AT_ONCE` only the newest are told; the others are counted in `lost`.
        """
        count = math.floor((now_s - self._began_s) / self._period_s + 1e-6) - self._made
        if count > MOST_AT_ONCE:
            self.lost += count - MOST_AT_ONCE
            self._made += count - MOST_AT_ONCE
            count = MOST_AT_ONCE
        times = [self._began_s + (self._made + index) * self._period_s for index in range(1, count + 1)]
        self._made += max(count, 0)
        return times
