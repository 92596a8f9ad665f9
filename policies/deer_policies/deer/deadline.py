"""The deadline rule: as deep as the time allows, judged by measured times of the segments that a step is made of."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deer_policies.deer.criteria import Candidate
from deer_policies.deer.exits import NEVER, Decision, ExitRule

Clock = Callable[[], float]
"""Seconds since any fixed moment; only differences count."""
WINDOW = 50
"""Measurements of a segment that are kept, and steps after which a segment that was not run is judged by its best."""
QUANTILE = 0.95
"""Share of the measurements in a window that a prediction covers."""


@dataclass(frozen=True)
class SegmentEstimate:
    """How long each segment of a step takes.

    Attributes:
        encode_s: from the step's start until the visual latents are there.
        layers_s: language model layers up to each exit, from the exit before.
        head_s: one run of the action head.
        rest_s: all else of a step: decisions, checking the action, the report.
    """

    encode_s: float
    layers_s: tuple[float, ...]
    head_s: float
    rest_s: float

    def first_exit_s(self, rule: ExitRule) -> float:
        """A whole step that stops at the first exit under a rule."""
        head_runs = 2 if compares(rule) else 1
        return self.encode_s + self.layers_s[0] + head_runs * self.head_s + self.rest_s


def exits_in_time(estimate: SegmentEstimate, llm_gmac: Sequence[float], latency_s: float) -> int:
    """How many exits a step can reach in time at best, judged by the layers of the first exit alone.

    Args:
        estimate: with the first exit's layers; those behind are taken to need time as they need computation.
        llm_gmac: of the language model up to each exit, growing with depth.
        latency_s: for a whole step, with one run of the head.

    Returns:
        At least 1: whether the first exit is in time is for `DeerPolicy.set_budget` to judge.
    """
    rest_s = estimate.encode_s + estimate.head_s + estimate.rest_s
    in_time = sum(rest_s + estimate.layers_s[0] * gmac / llm_gmac[0] <= latency_s for gmac in llm_gmac)
    return max(in_time, 1)


class _Window:
    """The last measurements of one segment, and for how many steps there has been none."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=WINDOW)
        self._idle_steps = 0

    def add(self, seconds: float) -> None:
        self._times_s.append(seconds)
        self._idle_steps = 0

    def skip(self) -> None:
        """A deep segment that was slow once is not run again, so nothing would ever tell that it is quick now: after a
        while only its best time is held against it."""
        self._idle_steps += 1
        if self._idle_steps == WINDOW and self._times_s:
            best = min(self._times_s)
            self._times_s.clear()
            self._times_s.append(best)

    def quantile_s(self, quantile: float) -> float:
        """0 while there is no measurement: what was never tried is tried."""
        ordered = sorted(self._times_s)
        return ordered[math.ceil(quantile * len(ordered)) - 1] if ordered else 0.0


class SegmentTimes:
    """Sliding windows of measured wall times of each segment; they tell of the machine, not of an episode."""

    def __init__(self, exits: int) -> None:
        self._encode, self._head, self._rest = _Window(), _Window(), _Window()
        self._layers = tuple(_Window() for _ in range(exits))

    def add(self, watch: Stopwatch, total_s: float) -> None:
        """Takes in one step of `total_s` in all."""
        self._encode.add(watch.encode_s)
        for index, window in enumerate(self._layers):
            if index < len(watch.layers_s):
                window.add(watch.layers_s[index])
            else:
                window.skip()
        for seconds in watch.heads_s:
            self._head.add(seconds)
        self._rest.add(total_s - watch.encode_s - sum(watch.layers_s) - sum(watch.heads_s))

    def estimate(self, quantile: float = QUANTILE) -> SegmentEstimate:
        """What each segment takes at most in this share of the steps."""
        encode_s, head_s, rest_s = (part.quantile_s(quantile) for part in (self._encode, self._head, self._rest))
        return SegmentEstimate(encode_s, tuple(part.quantile_s(quantile) for part in self._layers), head_s, rest_s)


class Stopwatch:
    """Notes how long each segment of a step takes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.encode_s = 0.0
        self.layers_s: list[float] = []
        self.heads_s: list[float] = []

    def layers(self, index: int, began_s: float) -> None:
        """Segment `index` of the layers is over; that before the first exit (0) counts to the first exit (1)."""
        seconds = self.clock() - began_s
        if index == 1:
            self.layers_s[0] += seconds
        else:
            self.layers_s.append(seconds)

    def timed_head(self, head: Callable[..., Any]) -> Callable[..., Any]:
        """The action head, with each run noted."""

        def run(*arguments: Any) -> Any:
            began = self.clock()
            output = head(*arguments)
            self.heads_s.append(self.clock() - began)
            return output

        return run


def compares(rule: ExitRule) -> bool:
    """Whether a rule looks at candidates at all, or has made up its mind beforehand."""
    return any(threshold > NEVER for threshold in rule.thresholds[:-1])


@dataclass(frozen=True)
class DeadlineRule:
    """Stops where another rule does, and before the next exit's action would come too late.

    It is made anew for each step, from the moment at which the action is due and what the segments take at present.

    Attributes:
        inner: the rule that may stop earlier.
        due_s: reading of the clock at which the step must be over.
        estimate: of the segments.
        clock: what is read at each decision.
    """

    inner: ExitRule
    due_s: float
    estimate: SegmentEstimate
    clock: Clock

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Those of the rule inside."""
        return self.inner.thresholds

    def decide(self, candidates: Sequence[Candidate], step: int) -> Decision:
        """See `ExitRule`."""
        decision = self.inner.decide(candidates, step)
        if decision.stop:
            return decision
        # The next exit is compared with this one, whose action may be missing still.
        head_runs = 2 if compares(self.inner) and not candidates[-1].evaluated else 1
        next_exit = len(candidates) - 1
        left_s = self.estimate.layers_s[next_exit] + head_runs * self.estimate.head_s + self.estimate.rest_s
        return replace(decision, stop=self.clock() + left_s > self.due_s)

    def limited(self, exits: int) -> DeadlineRule:
        """The same with only the first `exits` exits in use."""
        return replace(self, inner=self.inner.limited(exits))
