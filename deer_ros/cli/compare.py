"""`deer compare`: two evaluations of the same chains, with a paired test of their difference."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deer_sim.results import ChainResult

HELP = "compare two evaluations of the same sequences or starts: paired test of the difference, and cost"
SEED = 0
"""Of bootstrap and permutations."""
INCOMPARABLE = ("environment", "renderer", "max_steps", "wordings")
"""Settings under which a difference says nothing about policies."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("first", type=Path, help="folder that `deer eval --out` wrote")
    parser.add_argument("second", type=Path, help="another one, with the same sequences or starts and seed")


def run(arguments: argparse.Namespace) -> int:
    """Prints the comparison; a positive difference means that the first did better."""
    import numpy as np

    from deer_policies.errors import ConfigError, listed
    from deer_sim.scores import summarise
    from deer_sim.statistics import paired_difference, sign_flip_p

    first, second = (results_of(folder) for folder in (arguments.first, arguments.second))
    if set(first) != set(second):
        lone = sorted(set(first) ^ set(second))
        raise ConfigError(
            f"{len(lone)} chains were run on one side only ({listed(lone)}); run the same --sequences, or --tasks and "
            "--starts, with the same --seed on both sides"
        )
    for warning in warnings(settings_of(arguments.first), settings_of(arguments.second)):
        print(f"WARNING: {warning}")
    keys = sorted(first)
    for name, results in (("first", first), ("second", second)):
        print(f"{name:6s} {described(summarise([results[key] for key in keys]))}")
    solved = [np.array([float(results[key].solved) for key in keys]) for results in (first, second)]
    mean, low, high = paired_difference(solved[0], solved[1], np.random.default_rng(SEED))
    p = sign_flip_p(solved[0] - solved[1], np.random.default_rng(SEED))
    print(
        f"first - second: {mean:+.3f} subtasks in a row, 95 % interval [{low:+.3f}, {high:+.3f}] (paired bootstrap), "
        f"p = {p:.4f} (paired sign flips), {len(keys)} pairs"
    )
    return 0


def results_of(folder: Path) -> dict[str, ChainResult]:
    """The results in a folder, by key."""
    from deer_policies.errors import ConfigError
    from deer_sim.results import read_results

    results = {result.key: result for result in read_results(folder)}
    if not results:
        raise ConfigError(f"{folder} holds no results; run `deer eval --out {folder}` first")
    return results


def settings_of(folder: Path) -> dict[str, Any]:
    """What the results in a folder depend on."""
    from deer_sim.results import SETTINGS

    path = folder / SETTINGS
    return json.loads(path.read_text()) if path.exists() else {}


def warnings(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Why the two sides can't be compared, though they ran the same sequences."""
    return [
        f"{name} differs: {first.get(name)!r} and {second.get(name)!r}; what differs below are not only the policies"
        for name in INCOMPARABLE
        if first.get(name) != second.get(name)
    ]


def described(report: dict[str, Any]) -> str:
    """One side in a line."""
    low, high = report["average_length_interval"]
    text = (
        f"{report['average_length']:.3f} [{low:.3f}, {high:.3f}] of {len(report['per_position'])} in a row over "
        f"{report['sequences']}, {report['all']['rate']:.1%} of the subtasks tried"
    )
    if report["llm_share"] is None:
        return text
    return (
        f"{text}, {report['mean_exit_layers']:.2f} layers, {report['llm_share']:.1%} of the language model, "
        f"{report['total_share']:.1%} of the whole policy, asked at {report['asked_share']:.1%} of the control steps"
    )
