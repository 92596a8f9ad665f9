"""What all report pages share: the template environment, the words for figures, and the colours of exits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deer_sim.film import exit_colour, format_gmac

NOTHING = "none"
"""Shown where there was no step to measure."""


@dataclass(frozen=True)
class ExitShare:
    """How often an exit was taken."""

    name: str
    colour: str
    count: int
    share: float


def render(template: str, **content: Any) -> str:
    """The HTML page that a template makes of its content."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deer_ros", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["gmac"] = lambda value: NOTHING if value is None else format_gmac(value)
    environment.filters["ms"] = lambda value: NOTHING if value is None else f"{value:.1f} ms"
    environment.filters["percent"] = lambda value: NOTHING if value is None else f"{value:.0%}"
    return environment.get_template(template).render(**content)


def exit_shares(exit_counts: dict[str, int], exit_layers: list[int]) -> tuple[ExitShare, ...]:
    """The histogram of the exits, shallowest first.

    Args:
        exit_counts: policy steps by exit index; exits that are missing were not taken.
        exit_layers: 0-based layer of each exit.
    """
    total = max(sum(exit_counts.values()), 1)
    return tuple(
        ExitShare(
            f"{layer + 1} layers",
            hex_colour(index, len(exit_layers)),
            exit_counts.get(str(index), 0),
            exit_counts.get(str(index), 0) / total,
        )
        for index, layer in enumerate(exit_layers)
    )


def hex_colour(exit_index: int, exit_count: int) -> str:
    """The exit's colour in the film, for a page."""
    red, green, blue = exit_colour(exit_index, exit_count)
    return f"#{red:02x}{green:02x}{blue:02x}"
