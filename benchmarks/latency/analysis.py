"""From traces to numbers: the parts of each frame's way from stamp to command, percentiles, and what was missed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

PARTS = ("transport", "wait", "model", "hand-over", "safety", "delivery")
"""From the stamp to the complete frame in the policy node; to the model's beginning; to its end; to the action in the
safety node; to its command; to that in the driver. A frame that a chunk answers has no wait and no model."""
TOTAL, OVERHEAD, MODEL = "stamp to command", "without model", "model when asked"
PERCENTILES = (50.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True)
class Steps:
    """The frames of a time span.

    Attributes:
        parts_ms: (frames, parts) in the order of `PARTS`, NaN from where a frame got lost.
        asked: (frames,) whether the model was asked, rather than a chunk in execution.
    """

    parts_ms: np.ndarray
    asked: np.ndarray

    @property
    def answered(self) -> np.ndarray:
        """(frames,) whether a command came back."""
        return ~np.isnan(self.parts_ms).any(1)

    @property
    def total_ms(self) -> np.ndarray:
        """(frames,) from stamp to command, NaN without one."""
        return self.parts_ms.sum(1)

    def columns(self) -> dict[str, np.ndarray]:
        """Each part, the whole and the whole without the model, of the frames that were answered."""
        parts = self.parts_ms[self.answered]
        columns = {name: parts[:, index] for index, name in enumerate(PARTS)}
        return {**columns, TOTAL: parts.sum(1), OVERHEAD: parts.sum(1) - columns["model"]}


def steps(traces: Mapping[str, np.ndarray], from_ns: int, to_ns: int) -> Steps:
    """The frames captured in [from_ns, to_ns), put together from the events of `latency.trace.EVENTS`."""
    captured = traces["captured"]
    captured = captured[(captured[:, 1] >= from_ns) & (captured[:, 1] < to_ns)]
    frames = captured[:, 0]
    answers = traces["sent"][traces["sent"][:, 0] != 0]
    answer = _places(frames, answers[:, 0])
    commands = np.where(answer >= 0, answers[answer, 1], -1) if len(answers) else np.full(len(frames), -1)
    times = [
        captured[:, 1].astype(np.float64),
        *(_times(frames, traces[name]) for name in ("framed", "began", "ended", "arrived")),
        _times(frames, answers[:, [0, 2]]),
        _times(commands, traces["received"]),
    ]
    asked = ~np.isnan(times[2])
    answered_by_chunk = ~asked & ~np.isnan(times[4])
    for moment in (2, 3):
        times[moment][answered_by_chunk] = times[1][answered_by_chunk]
    return Steps(np.diff(np.stack(times, 1), axis=1) / 1e6, asked)


def percentiles(values: np.ndarray) -> dict[str, float]:
    """p50, p99, p99.9 and the greatest; nothing of no values."""
    if not len(values):
        return {}
    names = ("p50", "p99", "p99.9", "max")
    return dict(zip(names, np.percentile(values, PERCENTILES).tolist(), strict=True))


def summary(found: Steps, period_s: float) -> dict[str, object]:
    """What is written down of a run: percentiles in ms of each part and of the whole, frames, missed and late ones."""
    late = found.total_ms[found.answered] > period_s * 1e3
    chunk, asked = found.answered & ~found.asked, found.answered & found.asked
    ms = {name: percentiles(values) for name, values in found.columns().items()}
    ms[MODEL] = percentiles(found.parts_ms[asked, PARTS.index("model")])
    return {
        "frames": len(found.asked),
        "asked": int(found.asked.sum()),
        "missed": int((~found.answered).sum()),
        "never complete": int(np.isnan(found.parts_ms[:, 0]).sum()),
        "later than a period": int(late.sum()),
        "ms": ms,
        "asked ms": percentiles(found.total_ms[asked]),
        "from chunk ms": percentiles(found.total_ms[chunk]),
    }


def _times(keys: np.ndarray, event: np.ndarray) -> np.ndarray:
    """For each key, the time of the first row (key, time) that has it, as float64; NaN if there is none."""
    place = _places(keys, event[:, 0])
    found = np.full(len(keys), np.nan)
    found[place >= 0] = event[place[place >= 0], 1]
    return found


def _places(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For each key, the index of the first of `known` that equals it; -1 if there is none."""
    if not len(known):
        return np.full(len(keys), -1)
    ordered, first = np.unique(known, return_index=True)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[place] == keys, first[place], -1)
