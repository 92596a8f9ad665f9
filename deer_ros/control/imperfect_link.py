"""A line that delivers late, irregularly, or not at all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from deer_policies.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class LinkQuality:
    """How bad a line is.

    Attributes:
        latency_s: what everything is late by.
        jitter_s: the most that it is late by beyond that; drawn evenly for each item.
        dropout: probability that an item is lost.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.latency_s < np.inf and 0.0 <= self.jitter_s < np.inf and 0.0 <= self.dropout <= 1.0):
            raise ConfigError(f"{self} must have times of 0 s or more and a dropout in 0..1")

    @property
    def perfect(self) -> bool:
        """Whether everything comes at once."""
        return self == LinkQuality()


class ImperfectLink(Generic[T]):
    """Keeps what is under way. Nothing overtakes what was sent before it; times are those of a clock that never jumps.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._quality = LinkQuality()
        self._under_way: deque[tuple[float, T]] = deque()
        self.lost = 0

    @property
    def quality(self) -> LinkQuality:
        """How bad it is now."""
        return self._quality

    def change(self, quality: LinkQuality, now_s: float) -> None:
        """Makes it better or worse; what is under way comes no later than it would if it were sent now."""
        self._quality = quality
        latest_s = now_s + quality.latency_s + quality.jitter_s
        self._under_way = deque((min(due_s, latest_s), item) for due_s, item in self._under_way)

    def send(self, item: T, now_s: float) -> None:
        """Takes an item, or loses it."""
        quality = self._quality
        if self._random.random() < quality.dropout:
            self.lost += 1
            return
        due_s = now_s + quality.latency_s + quality.jitter_s * self._random.random()
        if self._under_way:
            due_s = max(due_s, self._under_way[-1][0])
        self._under_way.append((due_s, item))

    def due(self, now_s: float) -> list[T]:
        """What has arrived by now, in the order in which it was sent."""
        arrived = []
        while self._under_way and self._under_way[0][0] <= now_s:
            arrived.append(self._under_way.popleft()[1])
        return arrived

    @property
    def next_s(self) -> float | None:
        """When the next item arrives; None if nothing is under way."""
        return self._under_way[0][0] if self._under_way else None

    def clear(self) -> None:
        """Forgets what is under way."""
        self._under_way.clear()
