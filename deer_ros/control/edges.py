"""Tells when a trouble begins and when it is over, so that it is logged twice and not every second."""

from __future__ import annotations

from collections.abc import Mapping

OVER_AFTER_S = 5.0
"""A trouble that comes and goes is one trouble: it is over when it was away for so long."""


class Edges:
    """Keeps which troubles there are. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._seen_s: dict[str, float] = {}

    def changes(self, troubles: Mapping[str, str], now_s: float) -> tuple[list[str], list[str]]:
        """The words about troubles that are new, and the names of those that are over.

        Args:
            troubles: words by name, those that there are now.
            now_s: the time.
        """
        begun = [words for name, words in troubles.items() if name not in self._seen_s]
        self._seen_s.update(dict.fromkeys(troubles, now_s))
        over = [name for name, seen_s in self._seen_s.items() if now_s - seen_s > OVER_AFTER_S]
        for name in over:
            del self._seen_s[name]
        return begun, over
