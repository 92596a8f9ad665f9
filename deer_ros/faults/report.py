"""The table of a fault campaign, from its trials."""

from __future__ import annotations

from collections.abc import Sequence

from deer_ros.faults.campaign import BAR_S, Trial
from deer_ros.faults.catalogue import FAULTS, RUNS_ON

COLUMNS = (
    *("fault", "noticed within", "holds after (each round), ms", "after the limit, ms"),
    *("way after it, mm", "what is told", "moves again after, s"),
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
    noticed = limit if first.limit_s in (None, 0.0) else f"{1e3 * (first.limit_s or 0.0):.0f} ms ({limit})"
    held = [trial.held_after_s for trial in trials]
    if limit == RUNS_ON:
        shown = (
            f"exit {max(trial.exits[0] for trial in trials)} before, {max(trial.exits[1] for trial in trials)} after"
        )
        late = "-"
    else:
        shown = ", ".join("never" if value is None else f"{1e3 * value:.0f}" for value in held)
        known = [value for value in held if value is not None]
        late = f"{1e3 * (max(known) - (first.limit_s or 0.0)):.0f}" if len(known) == len(held) else "never"
    ways = [trial.travel_m for trial in trials if trial.travel_m is not None]
    way = f"{1e3 * max(ways):.0f}" if ways and limit != RUNS_ON else "-"
    back = [trial.recovered_s for trial in trials]
    again = ", ".join("never" if value is None else f"{value:.1f}" for value in back)
    return f"| {what} | {noticed} | {shown} | {late} | {way} | {trials[-1].state or trials[-1].failure} | {again} |"
