"""Ctrl-C during training: it is noted, the update in progress is finished, and the state is saved."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noted_interruption() -> Iterator[Callable[[], bool]]:
    """Within the block, Ctrl-C and a polite kill only make the function that is yielded return True.

    Only the main thread may use it, as Python's signal handlers demand.
    """
    noted = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal noted
        noted = True

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
