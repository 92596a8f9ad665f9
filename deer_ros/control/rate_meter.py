"""Counts what comes in, for diagnostics: how often, and how long ago the last one."""

from __future__ import annotations


class RateMeter:
    """Times are seconds of one monotonic clock, passed in by the caller."""

    def __init__(self) -> None:
        self.count = 0
        self._last_s: float | None = None
        self._asked: tuple[float, int] | None = None

    def note(self, now_s: float) -> None:
        """One has come in."""
        self.count += 1
        self._last_s = now_s

    def age_s(self, now_s: float) -> float | None:
        """Since the last one; None if there was none."""
        return None if self._last_s is None else now_s - self._last_s

    def rate_hz(self, now_s: float) -> float:
        """On average since it was asked for the last time; 0 at the first time."""
        before, self._asked = self._asked, (now_s, self.count)
        if before is None or now_s <= before[0]:
            return 0.0
        return (self.count - before[1]) / (now_s - before[0])
