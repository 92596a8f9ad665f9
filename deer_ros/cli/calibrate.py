"""`deer calibrate`: records criterion values on a policy's own steps, so that budgets hold, and checks that they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "record what exit thresholds are solved from, on fresh episodes, and check the average that they give"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument(
        "--criterion",
        help="exit criterion: action, feature, time or predicted; by default the checkpoint's, else action",
    )
    parser.add_argument(
        "--average-llm-gmac",
        type=float,
        help="mean cost of the language model to calibrate for, in 1e9 MAC a step; by default the checkpoint's budget",
    )
    add_promise(parser)
    parser.add_argument(
        "--scenes",
        nargs="+",
        help="A, B, C, D: PlayTable's; or such as calvin:D; by default those that the policy was trained in",
    )
    parser.add_argument(
        "--tasks", nargs="+", help="task names, or 'fixtures' for the eight; by default those that it was trained on"
    )
    parser.add_argument("--episodes", type=int, default=80, help="of each round, and as many to check the result on")
    parser.add_argument("--rounds", type=int, default=2, help="how often thresholds are solved and acted under")
    parser.add_argument("--seed", type=int, default=900, help="of starts and wordings")
    parser.add_argument("--max-steps", type=int, default=360, help="control steps before an episode counts as failed")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--work", type=Path, default=Path(".cache/calibrate"), help="folder for the episodes")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write (.safetensors)")


def add_promise(parser: Any) -> None:
    """Adds the option that asks for certified thresholds."""
    parser.add_argument(
        "--conformal",
        nargs=3,
        type=float,
        metavar=("EPSILON", "ALPHA", "DELTA"),
        help="thresholds at which, with confidence 1 - DELTA, the pose is within EPSILON (root mean square) of all "
        "layers', and the gripper the same, on at least 1 - ALPHA of the steps",
    )


def run(arguments: argparse.Namespace) -> int:
    """Records, solves, checks, and writes the checkpoint."""
    from dataclasses import replace

    from deer_policies.deer.checkpoint import find, load, save
    from deer_policies.deer.conformal import Promise
    from deer_ros.cli.calibration_run import CalibrationPlan, calibrate_in_simulation
    from deer_sim.tasks import FIXTURE_TASKS, TASKS

    path = find(arguments.policy)
    checkpoint = load(path)
    average = arguments.average_llm_gmac or checkpoint.budget.average_llm_gmac
    recipe = checkpoint.provenance.get("recipe", {})
    tasks = arguments.tasks or recipe.get("tasks") or TASKS
    plan = CalibrationPlan(
        scenes=tuple(arguments.scenes or recipe.get("scenes") or ("D",)),
        tasks=FIXTURE_TASKS if tasks == ["fixtures"] else tuple(tasks),
        episodes=arguments.episodes,
        seed=arguments.seed,
        criterion=arguments.criterion or (checkpoint.calibration.criterion if checkpoint.calibration else "action"),
        average_llm_gmac=average,
        promise=Promise(*arguments.conformal) if arguments.conformal else None,
        max_steps=arguments.max_steps,
        rounds=arguments.rounds,
    )
    calibration = calibrate_in_simulation(path, plan, arguments.work, arguments.workers)
    budget = replace(checkpoint.budget, average_llm_gmac=average)
    save(arguments.out, replace(checkpoint, calibration=calibration, budget=budget))
    print_source(calibration.source)
    print(f"wrote {arguments.out}")
    return 0


def print_source(source: dict[str, Any]) -> None:
    """Prints what the thresholds gave on the episodes that only checked them."""
    requested, achieved = source["requested_llm_gmac"], source["achieved_llm_gmac"]
    print(
        f"language model: {requested:.5f} GMAC a step asked for, {achieved:.5f} measured on {source['check_episodes']} "
        f"other episodes ({achieved / requested - 1.0:+.1%})"
    )
    if "broken_share" in source:
        print(f"steps further from all layers' action than promised: {source['broken_share']:.2%}")
