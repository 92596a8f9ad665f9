"""How the tables are written: rows of scored cells."""

from __future__ import annotations

from collections.abc import Sequence

from paper.cells import Scored

COST_COLUMNS = ("layers", "language model", "whole policy")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores(
    first: str, rows: Sequence[tuple[str, Scored]], references: Sequence[tuple[str, Sequence[Scored | None]]]
) -> str:
    """A table of cells: average length, differences from other cells, compute against all layers.

    Args:
        first: heading of the first column.
        rows: what stands in it, and the cell.
        references: heading of each column of differences, and for each row the cell that is taken off; None leaves the
            field empty.
    """
    planned = len(rows[0][1].report["per_position"])
    header = [first, f"in a row, of {planned}", *(name for name, _ in references), *COST_COLUMNS]
    return table(
        header,
        [
            [
                label,
                average(cell),
                *("" if others[index] is None else difference(cell, others[index]) for _, others in references),
                *costs(cell),
            ]
            for index, (label, cell) in enumerate(rows)
        ],
    )


def average(cell: Scored) -> str:
    """Average length with its interval."""
    low, high = cell.report["average_length_interval"]
    return f"{cell.report['average_length']:.3f} [{low:.3f}, {high:.3f}]"


def difference(first: Scored, second: Scored) -> str:
    """First minus second with its interval."""
    mean, low, high = first.minus(second)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def costs(cell: Scored) -> list[str]:
    """Layers that ran on average, and compute against all layers, of the language model and of the whole policy."""
    report = cell.report
    return [f"{report['mean_exit_layers']:.2f}", f"{report['llm_share']:.1%}", f"{report['total_share']:.1%}"]
