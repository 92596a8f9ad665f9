"""`deer compare`: two evaluations on the same trials, with the paired difference of their success."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "compare two evaluations that ran the same trials: paired difference of success, and cost"
BOOTSTRAP_SEED = 0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("first", type=Path, help="folder that `deer eval --out` wrote")
    parser.add_argument("second", type=Path, help="another one, with the same scene, tasks, starts and seed")


def run(arguments: argparse.Namespace) -> int:
    """Prints the comparison; a positive difference means that the first did better."""
    import numpy as np

    from deer_policies.errors import ConfigError
    from deer_sim.evaluation import read_results, summarise
    from deer_sim.statistics import paired_difference

    sides = []
    for folder in (arguments.first, arguments.second):
        outcomes = {outcome.key: outcome for outcome in read_results(folder / "results.jsonl")}
        if not outcomes:
            raise ConfigError(f"{folder} holds no results.jsonl with results; run `deer eval --out {folder}` first")
        sides.append(outcomes)
    first, second = sides
    if set(first) != set(second):
        lone = sorted(set(first) ^ set(second))
        raise ConfigError(f"{len(lone)} trials were run on one side only ({lone[0]}, ...); use the same tasks and seed")
    keys = sorted(first)
    for name, outcomes in (("first", first), ("second", second)):
        report = summarise([outcomes[key] for key in keys])
        low, high = report["all"]["interval"]
        print(
            f"{name:6s} {report['all']['rate']:6.1%} [{low:.1%}, {high:.1%}] of {len(keys)} solved, "
            f"{report['mean_exit_layers']:.2f} layers, {report['llm_share']:.1%} of the language model, "
            f"{report['total_share']:.1%} of the whole policy"
        )
    mean, low, high = paired_difference(
        np.array([float(first[key].success) for key in keys]),
        np.array([float(second[key].success) for key in keys]),
        np.random.default_rng(BOOTSTRAP_SEED),
    )
    print(f"first - second: {mean:+.1%}, 95 % interval [{low:+.1%}, {high:+.1%}] (paired bootstrap)")
    return 0
