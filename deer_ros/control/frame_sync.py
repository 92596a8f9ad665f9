"""Puts together what belongs to one instant: values of several channels whose stamps agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError

DEPTH = 8
"""Values kept of each channel while they wait for the others."""
RESTART_S = 1.0
"""A source whose stamps jump back by more than this has started anew."""


@dataclass(frozen=True)
class FrameSet:
    """One value of each channel.

    Attributes:
        stamp_s: of the first channel's value.
        values: by channel.
        received_s: when the oldest of the values came in, receiver's clock.
        repeated: whether this very set was given out before (a sender may repeat itself for those who missed it).
    """

    stamp_s: float
    values: dict[str, Any]
    received_s: float
    repeated: bool


class FrameSync:
    """Keeps the last few values of each channel and gives out each complete set, newest first.

    Args:
        channels: names; the first one leads: its stamp is the set's, and a repeated set comes with its repetition.
        slop_s: how far stamps of one set may lie apart; 0 for sources that stamp alike, such as the simulator.
    """

    def __init__(self, channels: tuple[str, ...], slop_s: float = 0.0) -> None:
        if not (np.isfinite(slop_s) and slop_s >= 0.0):
            raise ConfigError(f"slop_s is {slop_s}; it must be 0 or more seconds")
        self._leader = channels[0]
        self._slop_s = slop_s
        self._kept: dict[str, dict[float, tuple[Any, float]]] = {name: {} for name in channels}
        self._newest: tuple[float, ...] | None = None

    def add(self, channel: str, stamp_s: float, value: Any, now_s: float) -> FrameSet | None:
        """Adds a value, received at `now_s`; returns the set that it completes or repeats, if it does.

        A set older than the last one is not given out, but a jump back by more than `RESTART_S` is a new start of the
        source: everything from before is forgotten.
        """
        if self._newest is not None and stamp_s < self._newest[0] - RESTART_S:
            self._newest = None
            for kept in self._kept.values():
                kept.clear()
        kept = self._kept[channel]
        kept[stamp_s] = (value, now_s)
        while len(kept) > DEPTH:
            del kept[min(kept)]
        stamps = [self._nearest(name, stamp_s) for name in self._kept]
        if None in stamps:
            return None
        return self._give_out(channel, tuple(stamp for stamp in stamps if stamp is not None))

    def _nearest(self, channel: str, stamp_s: float) -> float | None:
        near = [other for other in self._kept[channel] if abs(other - stamp_s) <= self._slop_s]
        return min(near, key=lambda other: abs(other - stamp_s), default=None)

    def _give_out(self, channel: str, stamps: tuple[float, ...]) -> FrameSet | None:
        repeated = stamps == self._newest
        if repeated and channel != self._leader:
            return None
        if not repeated and self._newest is not None and stamps[0] <= self._newest[0]:
            return None
        self._newest = stamps
        items = {name: kept[stamp] for (name, kept), stamp in zip(self._kept.items(), stamps, strict=True)}
        values = {name: value for name, (value, _) in items.items()}
        return FrameSet(stamps[0], values, min(received for _, received in items.values()), repeated)
