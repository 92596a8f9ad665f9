"""The Markdown of the measurements: what `docs/results.md` says about the time from stamp to command."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from latency.analysis import MODEL, OVERHEAD, PARTS, TOTAL

PROCESSES = ("driver", "policy", "safety", "everything")
Run = Mapping[str, Any]
"""`analysis.summary` with policy, size, seconds, cores and timer."""


def size_name(size: Sequence[int] | None) -> str:
    """Rows and columns of both cameras' images."""
    return "200 x 200, 84 x 84" if size is None else " x ".join(str(value) for value in size)


def split_table(runs: Sequence[Run]) -> str:
    """Percentiles, ms, of each part and of the whole."""
    names = (*PARTS, TOTAL, OVERHEAD)
    rows = [f"| images | policy | | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for run in runs:
        head = f"{size_name(run['size'])} | {run['policy']}"
        for quantile in run["ms"][TOTAL]:
            values = " | ".join(f"{run['ms'][name][quantile]:.1f}" for name in names)
            rows.append(f"| {head} | {quantile} | {values} |")
            head = " | "
    return "\n".join(rows)


def load_table(runs: Sequence[Run]) -> str:
    """Frames, missed and late ones, the noise of a bare timer, and cores in use."""
    cores = " | ".join(f"{name} cores" for name in PROCESSES)
    rows = [
        f"| images | policy | minutes | frames | to the model | missed | over a period | timer p99 | {cores} |",
        "|---" * (8 + len(PROCESSES)) + "|",
    ]
    for run in runs:
        used = " | ".join(f"{run['cores'][name]:.2f}" for name in PROCESSES)
        counts = " | ".join(str(run[name]) for name in ("frames", "asked", "missed", "later than a period"))
        rows.append(
            f"| {size_name(run['size'])} | {run['policy']} | {run['seconds'] / 60:.1f} | {counts} | "
            f"{run['timer']['p99']:.1f} ms | {used} |"
        )
    return "\n".join(rows)


def comparison_table(compared: Mapping[str, Mapping[str, Run]]) -> str:
    """Each variant against the first of its group."""
    columns = {f"{name} {quantile}": (name, quantile) for name in (TOTAL, "transport") for quantile in ("p50", "p99")}
    columns |= {"model p50": (MODEL, "p50"), "model p99": (MODEL, "p99")}
    rows = [f"| | {' | '.join(columns)} | missed |", "|---" * (len(columns) + 2) + "|"]
    for group, variants in compared.items():
        first = next(iter(variants.values()))
        for name, run in variants.items():
            cells = [_against(run, first, *column) for column in columns.values()]
            rows.append(f"| {group}: {name} | {' | '.join(cells)} | {run['missed']} of {run['frames']} |")
    return "\n".join(rows)


def _against(run: Run, first: Run, name: str, quantile: str) -> str:
    value, of = (made["ms"][name].get(quantile) for made in (run, first))
    if value is None:
        return "none"
    return f"{value:.1f} ms" if run is first or not of else f"{value / of:.2f}"


def section(runs: Sequence[Run], compared: Mapping[str, Mapping[str, Run]], about: Mapping[str, Any]) -> str:
    """The whole section."""
    about_text = _ABOUT.format(**about, overhead=OVERHEAD, alone=about["timer alone"])
    parts = ["## From stamp to command", f"```console\n{about['command']}\n```", _filled(about_text)]
    parts += [split_table(runs), load_table(runs)]
    if compared:
        told = _COMPARED.format(seconds=about["compare seconds"], rounds=about["rounds"])
        parts += ["### What it depends on", _filled(told), comparison_table(compared)]
    return "\n\n".join(parts)


_ABOUT = """
Three processes as on a robot: a driver (two cameras and joint states at 30 Hz, twists back), the policy node and the
safety node with the arm's parameters, on {cores} cores with {scheduling}; code at commit {commit}. The driver plays
frames of an expert's episode. `none` is a policy that
answers every frame at once. `deer-nano` is shown every third frame; the two after it are answered by its chunk,
without wait and model, and those that come while it is still busy are missed. Times in ms, from the stamp of a frame
to its twist in the driver; each percentile is of its own column, and "{overhead}" leaves the model out frame by
frame. A bare timer at 30 Hz was late by {alone[p50]:.2f} ms (p50) and {alone[p99]:.2f} ms (p99) before the nodes ran,
and as the second table says while they ran."""

_COMPARED = """
Variants in turns, {seconds:g} s each, {rounds} rounds; the first of each group in ms, the others as ratios to it. Where
images get lost, the times are those of the frames that came."""


def _filled(text: str) -> str:
    return textwrap.fill(text.strip(), 120, break_long_words=False, break_on_hyphens=False)
