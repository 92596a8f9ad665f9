"""Notes of when things happened in a process: kept in memory while it runs, written when it ends.

Times are nanoseconds of the monotonic clock, which all processes of a Linux machine share. A frame is known by the
microseconds of its stamp: that is what a stamp in seconds, a float64, tells exactly.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FOLDER = "DEER_LATENCY_FOLDER"
"""Environment variable: where the processes of a run find their pictures and leave their traces."""

EVENTS: Mapping[str, tuple[str, ...]] = {
    "captured": ("frame_us", "at_ns"),
    "framed": ("frame_us", "at_ns"),
    "began": ("frame_us", "at_ns"),
    "ended": ("frame_us", "at_ns"),
    "arrived": ("frame_us", "at_ns"),
    "sent": ("frame_us", "command_ns", "at_ns"),
    "received": ("command_ns", "at_ns"),
}
"""Columns of each event: a frame is stamped by the driver, complete in the policy node, taken up and answered by the
model; its action comes to the safety node, which sends a command (of frame 0 if between two actions) to the driver.
"""


class Trace:
    """Rows of whole numbers for each event; noting one makes no object that the garbage collector would look at."""

    def __init__(self) -> None:
        self._rows = {name: array("q") for name in EVENTS}

    def note(self, event: str, *key: int) -> None:
        """The event happens now."""
        self._rows[event].extend((*key, time.monotonic_ns()))

    def write(self, name: str) -> None:
        """Writes what was noted for the process of that name, complete or not at all."""
        path = folder() / f"{name}.npz"
        rows = {event: np.array(values).reshape(-1, len(EVENTS[event])) for event, values in self._rows.items()}
        with open(path.with_suffix(".part"), "wb") as file:
            np.savez(file, **{event: table for event, table in rows.items() if len(table)})
        path.with_suffix(".part").replace(path)


def folder() -> Path:
    """The folder of this run."""
    return Path(os.environ[FOLDER])


def read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The rows (count, columns) int64 of each event, out of the traces of several processes."""
    found = {event: np.empty((0, len(columns)), np.int64) for event, columns in EVENTS.items()}
    for name in names:
        with np.load(path / f"{name}.npz") as rows:
            found.update({event: rows[event] for event in rows.files})
    return found
