"""The running score of an evaluation, and the time that it has left."""

from __future__ import annotations

import time

from deer_sim.results import ChainResult


class Progress:
    """Prints a line for each result: how many are done, the score so far, and the time left."""

    def __init__(self, total: int, resumed: int) -> None:
        """Args:
        total: results in all.
        resumed: of an earlier run; they come first and at once, and tell nothing about the time.
        """
        self._total = total
        self._resumed = resumed
        self._done = self._solved = 0
        self._started = time.monotonic()

    def show(self, result: ChainResult) -> None:
        """Takes in one more result."""
        self._done += 1
        self._solved += result.solved
        new = self._done - self._resumed
        left_s = (time.monotonic() - self._started) / max(new, 1) * (self._total - self._done)
        print(
            f"{self._done}/{self._total}  average {self._solved / self._done:.3f} of {result.planned}  "
            f"{format_duration(left_s) if new > 0 else '?'} left  {result.key}: {result.solved}",
            flush=True,
        )


def format_duration(seconds: float) -> str:
    """Such as 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
