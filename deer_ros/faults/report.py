"""The table of a fault campaign, from its trials."""

from __future__ import annotations

from collections.abc import Sequence

from deer_ros.faults.campaign import BAR_S, Trial
from deer_ros.faults.catalogue import FAULTS, RUNS_ON

COLUMNS = (
    *("fault", "noticed by", "at the latest after, ms", "told after, ms", "tool stands after, ms"),
    *("way, mm", "what is told", "moves again after, s"),
)


def table(trials: Sequence[Trial]) -> str:
    """Markdown, a row for each fault in the order of the catalogue."""
    rows = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for fault in FAULTS:
        found = [trial for trial in trials if trial.fault == fault.name]
        if found:
            rows.append(_row(fault.what, fault.limit, found))
    return "\n".join(rows)


def summary(trials: Sequence[Trial]) -> str:
    """One line: how many were within the bar."""
    good = sum(trial.within_bar for trial in trials)
    return f"{good} of {len(trials)} trials held within {1e3 * BAR_S:.0f} ms after the limit, and moved again"


def _row(what: str, limit: str, trials: Sequence[Trial]) -> str:
    first = trials[0]
    stands, way = _each([trial.held_after_s for trial in trials]), _each([trial.travel_m for trial in trials], "-")
    if limit == RUNS_ON:
        stands = (
            f"exit {max(trial.exits[0] for trial in trials)} before, {max(trial.exits[1] for trial in trials)} after"
        )
        way = "-"
    latest = "-" if first.limit_s is None else f"{1e3 * first.limit_s:.0f}"
    told = _each([trial.told_s for trial in trials], "-")
    again = ", ".join("never" if at.recovered_s is None else f"{at.recovered_s:.1f}" for at in trials)
    said = trials[-1].state or trials[-1].failure
    return f"| {what} | {limit} | {latest} | {told} | {stands} | {way} | {said} | {again} |"


def _each(values: Sequence[float | None], missing: str = "never") -> str:
    """Each round's value in thousandths."""
    return ", ".join(missing if value is None else f"{1e3 * value:.0f}" for value in values)
