"""Makes the page of an evaluation from the content of its report.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deer_ros.cli.pages import ExitShare, exit_shares, render

PLOT_WIDTH, PLOT_HEIGHT = 640.0, 300.0
"""Of the plot of cost against success, in SVG units."""


@dataclass(frozen=True)
class TaskRow:
    """A task in the tables; the entry of report.json is at hand as `entry`."""

    task: str
    entry: dict[str, Any]
    exits: tuple[ExitShare, ...]
    share: float | None
    """Compute of the language model against running all its layers."""


@dataclass(frozen=True)
class Dot:
    """A task in the plot: more to the right cost more, higher was solved more often, larger was tried more often."""

    x: float
    y: float
    radius: float
    words: str


def render_page(report: dict[str, Any]) -> str:
    """The HTML page of a report (see `evaluation_report.write_report`)."""
    rows = [task_row(report, task) for task in report["per_task"]]
    return render(
        "evaluation.html.j2",
        report=report,
        rows=rows,
        exits=exit_shares(report["exit_counts"], report["exit_layers"]),
        dots=dots(rows),
        plot=(PLOT_WIDTH, PLOT_HEIGHT),
    )


def task_row(report: dict[str, Any], task: str) -> TaskRow:
    """A task's row."""
    entry = report["per_task"][task]
    share = entry["mean_llm_gmac"] / entry["full_llm_gmac"] if entry["full_llm_gmac"] else None
    return TaskRow(task, entry, exit_shares(entry["exit_counts"], report["exit_layers"]), share)


def dots(rows: list[TaskRow]) -> list[Dot]:
    """The plot of cost against success; empty where no cost was reported."""
    return [
        Dot(
            x=PLOT_WIDTH * row.share,
            y=PLOT_HEIGHT * (1.0 - row.entry["rate"]),
            radius=3.0 + min(row.entry["attempts"], 100) ** 0.5,
            words=f"{row.task}: {row.entry['success']} of {row.entry['attempts']} at {row.share:.0%} of all layers",
        )
        for row in rows
        if row.share is not None
    ]
