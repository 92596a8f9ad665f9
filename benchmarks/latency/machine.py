"""The machine's own noise: how late a bare timer is, and the processor time that processes take."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np


def tick(seconds: float, rate_hz: float) -> np.ndarray:
    """How late (ticks,) each tick of a bare timer was, in ms; sleeps from one to the next for that long."""
    began, count = time.monotonic(), max(1, round(seconds * rate_hz))
    late_ms = np.empty(count)
    for index in range(count):
        due = began + (index + 1) / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
        late_ms[index] = 1e3 * (time.monotonic() - due)
    return late_ms


def busy_s() -> float:
    """Processor time that everything on the machine has taken so far, all cores together."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
