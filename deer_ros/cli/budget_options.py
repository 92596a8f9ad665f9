"""Options of commands that run a policy under a budget."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_policies.interfaces import Budget

PEAKS = {
    "peak_llm_gmac": "no step may take more of the language model than this, in 1e9 MAC",
    "peak_memory_gib": "weights and activations may not take more, in GiB",
    "latency_ms": "no step may take longer, in ms of wall time",
}
"""Limits of a `Budget` on single steps, and what they mean."""


def add_average(parser: Any) -> None:
    """Adds the option for the mean cost."""
    parser.add_argument(
        "--average-llm-gmac", type=float, help="budget: mean cost of the language model in 1e9 MAC a step"
    )


def add_peaks(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each limit on single steps."""
    for name, meaning in PEAKS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            help=f"budget: {meaning}; layers that this leaves out are not loaded",
        )


def budget_asked_for(arguments: argparse.Namespace) -> Budget | None:
    """The budget of the options that were given, or None if there is none of them."""
    from deer_policies.interfaces import Budget

    given = {name: getattr(arguments, name, None) for name in ("average_llm_gmac", *PEAKS)}
    return Budget(**given) if any(value is not None for value in given.values()) else None
