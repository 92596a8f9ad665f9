"""Worker processes for simulation: they end with the process that started them, whatever ended that one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any


@contextmanager
def worker_pool(
    workers: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of freshly started processes; work that has not begun when the block is left is dropped.

    A plain pool's workers wait for each other's queues for ever when their parent is killed.

    Args:
        workers: how many.
        start: called once in each worker; it must be picklable.
        arguments: of `start`.
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=begin_worker, initargs=(start, arguments))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def begin_worker(start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()) -> None:
    """What every worker process does first: it leaves Ctrl-C to its parent, and ends when that ends."""
    # Ctrl-C reaches the whole group of processes; the parent decides what is done about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "workers are started by another process"
    parent.join()
    os._exit(1)
