"""What the arm did: where its tool was and what it was told, by the time at which it was heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError

STILL_M_S = 0.005
"""Slower than this the tool stands; it moves at many times that before a fault."""
MOVING_M_S = 0.03
"""Faster than this it moves again."""
STEADY_SAMPLES = 15
"""Joint states in a second, at least."""


@dataclass(frozen=True)
class Held:
    """How an arm came to hold after a moment.

    Attributes:
        after_s: from then until the tool stood for good; None if it did not.
        command_s: from then until the last command that was not standstill.
        travel_m: length of the tool's way from then on.
        peak_m_s: the tool's greatest speed from then on.
        before_m_s: its mean speed in the second before.
    """

    after_s: float | None
    command_s: float
    travel_m: float
    peak_m_s: float
    before_m_s: float


class MotionRecord:
    """Takes samples in the order of time; all times are seconds of one monotonic clock.

    Args:
        positions: heard_s, stamp_s, x, y, z in m of the tool, a row for each joint state.
        commands: heard_s, speed in m/s, a row for each command to the arm.
    """

    def __init__(self, positions: np.ndarray, commands: np.ndarray) -> None:
        self._positions = np.asarray(positions, dtype=np.float64).reshape(-1, 5)
        self._commands = np.asarray(commands, dtype=np.float64).reshape(-1, 2)

    def speeds(self) -> tuple[np.ndarray, np.ndarray]:
        """When each was known (n,), and the tool's speeds (n,) between joint states of different stamps."""
        rows = self._positions[np.concatenate(([True], np.diff(self._positions[:, 1]) > 0.0))[: len(self._positions)]]
        ways = np.linalg.norm(np.diff(rows[:, 2:], axis=0), axis=1)
        return rows[1:, 0], ways / np.diff(rows[:, 1])

    def held(self, since_s: float, until_s: float) -> Held:
        """How it came to hold between two moments. Raises ConfigError if nothing was heard before the first."""
        heard_s, speeds = self.speeds()
        before = speeds[(heard_s > since_s - 1.0) & (heard_s <= since_s)]
        if not len(before):
            raise ConfigError("no joint state was heard in the second before; does the driver run?")
        window = (heard_s > since_s) & (heard_s <= until_s)
        times, after = heard_s[window], speeds[window]
        moving = times[after > STILL_M_S]
        stood = None
        if not len(moving):
            stood = 0.0
        elif moving[-1] < times[-1]:
            stood = float(times[times > moving[-1]][0] - since_s)
        told = self._commands[(self._commands[:, 0] > since_s) & (self._commands[:, 0] <= until_s)]
        driven = told[told[:, 1] > 0.0, 0]
        rows = self._positions[(self._positions[:, 0] >= since_s) & (self._positions[:, 0] <= until_s), 2:]
        return Held(
            after_s=stood,
            command_s=float(driven[-1] - since_s) if len(driven) else 0.0,
            travel_m=float(np.linalg.norm(np.diff(rows, axis=0), axis=1).sum()),
            peak_m_s=float(after.max(initial=0.0)),
            before_m_s=float(before.mean()),
        )

    def steady(self, since_s: float) -> bool:
        """Whether the tool has moved ever since, without a pause, and joint states came all the time."""
        heard_s, speeds = self.speeds()
        after = speeds[heard_s > since_s]
        return len(after) > STEADY_SAMPLES and bool((after > MOVING_M_S).all())

    def moves_from(self, since_s: float) -> float | None:
        """When after that moment the tool moves again; None if it does not."""
        heard_s, speeds = self.speeds()
        moving = heard_s[(heard_s > since_s) & (speeds > MOVING_M_S)]
        return float(moving[0]) if len(moving) else None
