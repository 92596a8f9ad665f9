"""Makes report.html from the content of report.json: a self-contained page, with its charts drawn as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deer_ros.cli.pages import ExitShare, exit_shares, hex_colour, render

CHART_WIDTH = 960.0
CHART_HEIGHT = 120.0
"""Of a timeline in SVG units; the page scales it to its own width."""


@dataclass(frozen=True)
class Bar:
    """Neighbouring policy steps that took the same exit, as a rectangle, with the words shown when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    words: str


@dataclass(frozen=True)
class Mark:
    """A vertical line of a timeline with a label."""

    x: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """The exit taken at each policy step: higher bars ran more layers."""

    bars: tuple[Bar, ...]
    budget_marks: tuple[Mark, ...]
    subtask_marks: tuple[Mark, ...]
    width: float = CHART_WIDTH
    height: float = CHART_HEIGHT


@dataclass(frozen=True)
class Card:
    """What the page shows of one subtask; the entry of report.json is at hand as `entry`."""

    number: int
    entry: dict[str, Any]
    timeline: Timeline
    exits: tuple[ExitShare, ...]
    used_share: float | None
    budget: str


@dataclass(frozen=True)
class Period:
    """The policy steps under one budget: how deep the policy ran then."""

    budget: str
    steps: int
    mean_layers: float
    used_share: float


def render_page(report: dict[str, Any]) -> str:
    """Returns the HTML page of a report (see `DemoRecord.as_json`)."""
    return render(
        "report.html.j2",
        report=report,
        solved=sum(entry["success"] for entry in report["subtasks"]),
        used_share=mean_share(report["subtasks"]),
        latency_ms=slowest_median(report["subtasks"]),
        periods=periods(report),
        timeline=timeline(report, report["subtasks"]),
        cards=[card(report, number) for number in range(len(report["subtasks"]))],
        exits=[
            ExitShare(f"exit {index}, {layer + 1} layers", hex_colour(index, len(report["exit_layers"])), 0, 0.0)
            for index, layer in enumerate(report["exit_layers"])
        ],
    )


def card(report: dict[str, Any], number: int) -> Card:
    """The card of one subtask."""
    entry = report["subtasks"][number]
    exits = exit_shares(entry["exit_counts"], report["exit_layers"])
    return Card(
        number + 1,
        entry,
        timeline(report, [entry]),
        exits,
        mean_share([entry]),
        budget_words(entry, report["full_gmac"]),
    )


def budget_words(entry: dict[str, Any], full_gmac: float) -> str:
    """The budget of a subtask and how it changed."""
    words = [share_words(entry["budget"], full_gmac)]
    for change in entry["budget_changes"]:
        words.append(f"{share_words(change['budget'], full_gmac)} from policy step {change['step']}")
    return ", then ".join(words)


def share_words(budget: float | None, full_gmac: float) -> str:
    """A budget in words, against the cost of the full language model."""
    return "no limit" if budget is None else f"{budget / full_gmac:.0%} of the full model"


def mean_share(entries: list[dict[str, Any]]) -> float | None:
    """Compute spent over these subtasks against always running the full language model; None without a step."""
    spent = sum(entry["mean_gmac"] * len(entry["exits"]) for entry in entries if entry["exits"])
    full = sum(entry["full_gmac"] * len(entry["exits"]) for entry in entries if entry["exits"])
    return spent / full if full else None


def slowest_median(entries: list[dict[str, Any]]) -> float | None:
    """The largest of the subtasks' median latencies, in ms."""
    medians = [entry["latency_ms"]["p50"] for entry in entries if entry["exits"]]
    return max(medians) if medians else None


def periods(report: dict[str, Any]) -> list[Period]:
    """The policy steps of the whole run, grouped by the budget that was in force, in order of time."""
    layers = report["exit_layers"]
    groups: list[tuple[float | None, list[int]]] = []
    for entry in report["subtasks"]:
        changes = {change["step"]: change["budget"] for change in entry["budget_changes"]}
        budget = entry["budget"]
        for step, exit_index in enumerate(entry["exits"], start=1):
            budget = changes.get(step, budget)
            if not groups or groups[-1][0] != budget:
                groups.append((budget, []))
            groups[-1][1].append(exit_index)
    found = []
    for budget, exits in groups:
        mean_layers = sum(layers[index] + 1 for index in exits) / len(exits)
        words = share_words(budget, report["full_gmac"])
        found.append(Period(words, len(exits), mean_layers, mean_layers / (layers[-1] + 1)))
    return found


def timeline(report: dict[str, Any], entries: list[dict[str, Any]]) -> Timeline:
    """The exits of one or more subtasks as bars; neighbouring policy steps with the same exit are one bar."""
    layers, count = report["exit_layers"], len(report["exit_layers"])
    total = max(sum(len(entry["exits"]) for entry in entries), 1)
    pitch = CHART_WIDTH / total
    bars: list[Bar] = []
    budget_marks: list[Mark] = []
    subtask_marks: list[Mark] = []
    place = 0
    budget = entries[0]["budget"] if entries else None
    for number, entry in enumerate(entries, start=1):
        if len(entries) > 1:
            subtask_marks.append(Mark(place * pitch, f"{number}"))
        changes = {0: entry["budget"]} | {change["step"] - 1: change["budget"] for change in entry["budget_changes"]}
        for step, now in sorted(changes.items()):
            if now != budget:
                budget_marks.append(Mark((place + step) * pitch, f"budget {share_words(now, report['full_gmac'])}"))
                budget = now
        for first, length, exit_index in runs(entry["exits"]):
            height = CHART_HEIGHT * (exit_index + 1) / count
            last = first + length
            steps = f"policy step {last}" if length == 1 else f"policy steps {first + 1} to {last}"
            bars.append(
                Bar(
                    x=(place + first) * pitch,
                    y=CHART_HEIGHT - height,
                    width=length * pitch,
                    height=height,
                    colour=hex_colour(exit_index, count),
                    words=f"{entry['task']}, {steps}: exit {exit_index}, {layers[exit_index] + 1} layers",
                )
            )
        place += len(entry["exits"])
    return Timeline(tuple(bars), tuple(budget_marks), tuple(subtask_marks))


def runs(values: list[int]) -> list[tuple[int, int, int]]:
    """Runs of equal values as (first position, length, value)."""
    found: list[tuple[int, int, int]] = []
    for position, value in enumerate(values):
        if found and found[-1][2] == value:
            first, length, _ = found[-1]
            found[-1] = (first, length + 1, value)
        else:
            found.append((position, 1, value))
    return found
