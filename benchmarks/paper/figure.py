"""The paper's figure 3 as an SVG: average length against the language model's compute, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paper.cells import Scored

WIDTH, HEIGHT = 640.0, 360.0
MARGIN = 70.0
SERIES = {"DeeR under a budget": "#1f6fb4", "fixed depth": "#c2571a"}
"""Names of the two lines and their colours."""


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is shown: compute from 0 to all layers, average length from `low` to `high`."""

    low: float
    high: float

    def x(self, share: float) -> float:
        """From a share of all layers' compute."""
        return WIDTH * share

    def y(self, length: float) -> float:
        """From an average length."""
        return HEIGHT * (self.high - length) / (self.high - self.low)


def figure(budgets: Sequence[Scored], fixed: Sequence[Scored]) -> str:
    """The SVG document; each series is drawn from little to much compute."""
    cells = [*budgets, *fixed]
    planned = len(cells[0].report["per_position"])
    low = min(cell.report["average_length_interval"][0] for cell in cells)
    high = max(cell.report["average_length_interval"][1] for cell in cells)
    room = max(0.1 * (high - low), 0.02 * planned)
    frame = Frame(max(0.0, low - room), min(float(planned), high + room))
    parts = [*_axes(frame, planned)]
    for index, ((name, colour), series) in enumerate(zip(SERIES.items(), (budgets, fixed), strict=True)):
        parts += _series(frame, series, colour)
        parts.append(f'<circle cx="{WIDTH - 160:.0f}" cy="{HEIGHT - 40 + 20 * index:.0f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - 148:.0f}" y="{HEIGHT - 35 + 20 * index:.0f}">{name}</text>')
    box = f"{-MARGIN:.0f} -20 {WIDTH + MARGIN + 20:.0f} {HEIGHT + 80:.0f}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" font-size="13">',
            f'<rect x="{-MARGIN:.0f}" y="-20" width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _axes(frame: Frame, planned: int) -> list[str]:
    parts = [f'<rect width="{WIDTH:.0f}" height="{HEIGHT:.0f}" fill="#f4f4f2"/>']
    for tick in range(0, 101, 20):
        parts.append(f'<text x="{frame.x(tick / 100):.1f}" y="{HEIGHT + 20:.0f}" text-anchor="middle">{tick} %</text>')
    for index in range(5):
        length = frame.low + (frame.high - frame.low) * index / 4
        parts.append(f'<text x="-8" y="{frame.y(length) + 4:.1f}" text-anchor="end">{length:.2f}</text>')
    parts.append(
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT + 45:.0f}" text-anchor="middle">'
        "language model a step, of all layers</text>"
    )
    parts.append(
        f'<text transform="translate(-52 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"subtasks in a row, of {planned}</text>"
    )
    return parts


def _series(frame: Frame, series: Sequence[Scored], colour: str) -> list[str]:
    ordered = sorted((cell.report for cell in series), key=lambda report: report["llm_share"])
    points = [(frame.x(report["llm_share"]), frame.y(report["average_length"])) for report in ordered]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for report, (x, y) in zip(ordered, points, strict=True):
        low, high = (frame.y(length) for length in report["average_length_interval"])
        words = f"{report['average_length']:.3f} at {report['llm_share']:.1%}"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"><title>{words}</title></circle>')
    return parts


def write_figure(path: Path, budgets: Sequence[Scored], fixed: Sequence[Scored]) -> None:
    """Writes the SVG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(figure(budgets, fixed), encoding="utf-8")
