"""`deer tune`: refines a policy's exit thresholds for one average budget by trying them in simulation."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_sim.chains import Chain

HELP = "refine exit thresholds for an average budget by Bayesian optimisation in simulation; resumable"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument(
        "--average-llm-gmac",
        type=float,
        help="budget: mean cost of the language model in 1e9 MAC a step; by default the checkpoint's",
    )
    parser.add_argument("--trials", type=int, default=20, help="thresholds to try, earlier runs included")
    parser.add_argument("--scene", default="D", help="PlayTable scene: A, B, C or D")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--sequences", type=int, metavar="N", default=40, help="the first N of the seed's sequences of five tasks"
    )
    what.add_argument("--tasks", nargs="+", help="single tasks instead, from random starts; 'fixtures' for the eight")
    parser.add_argument("--starts", type=int, default=10, help="random starts for each task, the same in every trial")
    parser.add_argument(
        "--seed", type=int, default=5000, help="of starts and wordings; keep it apart from the evaluation's"
    )
    parser.add_argument("--max-steps", type=int, default=360, help="control steps before a subtask counts as failed")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the search and its results, and for policy.safetensors"
    )


def run(arguments: argparse.Namespace) -> int:
    """Searches, and writes a checkpoint that uses the best thresholds when this average is asked for."""
    from deer_policies.deer.budget import CostModel
    from deer_policies.deer.checkpoint import find, load, save
    from deer_policies.deer.thresholds import Tuned, achieved_shares, rule_for_average, solve_thresholds
    from deer_policies.errors import ConfigError
    from deer_ros.cli.eval import make_policy
    from deer_ros.cli.tuning import Score, shares_from_stops, stops_from_shares, tune
    from deer_sim.evaluation import evaluate, local
    from deer_sim.fleet import Setup
    from deer_sim.scores import summarise

    path = find(arguments.policy)
    checkpoint = load(path)
    calibration = checkpoint.calibration
    average = arguments.average_llm_gmac or checkpoint.budget.average_llm_gmac
    if calibration is None or average is None:
        raise ConfigError(f"{path} has no calibration or no average budget: run `deer calibrate`, or give an average")
    calibration = replace(calibration, tuned=())
    exits = len(calibration.values)
    solved, _ = rule_for_average(calibration, CostModel(checkpoint.model.config), average, exits)
    plan = planned(arguments)
    setup = Setup(f"playtable:{arguments.scene}", max_steps=arguments.max_steps)

    def thresholds_of(stops: tuple[float, ...]) -> tuple[float, ...]:
        return solve_thresholds(calibration.values, shares_from_stops(stops))

    def score(number: int, stops: tuple[float, ...]) -> Score:
        rule = replace(solved, thresholds=thresholds_of(stops))
        runner = local(setup, make_policy(arguments.policy, rule=rule), arguments.workers)
        report = summarise(list(evaluate(plan, arguments.out / f"trial-{number:03d}", runner)))
        return Score(report["average_length"] / len(report["per_position"]), report["mean_llm_gmac"])

    settings = {
        "policy": checkpoint.sha256,
        "scene": arguments.scene,
        "chains": [chain.key for chain in plan],
        "seed": arguments.seed,
        "max_steps": arguments.max_steps,
    }
    start = stops_from_shares(achieved_shares(calibration.values, solved.thresholds))
    found = tune(start, score, arguments.trials, average, arguments.out, settings)
    best = found[0]
    (arguments.out / "trials.json").write_text(json.dumps([asdict(trial) for trial in found], indent=2) + "\n")
    for trial in sorted(found, key=lambda item: item.number):
        print(
            f"trial {trial.number:3d}: {trial.score.success:6.1%} solved, {trial.score.llm_gmac:.5f} GMAC a step, "
            f"objective {trial.score.objective(average):+.4f}{'  <- best' if trial is best else ''}"
        )
    tuned = replace(calibration, tuned=(Tuned(average, thresholds_of(best.stops)),))
    out = arguments.out / "policy.safetensors"
    save(out, replace(checkpoint, calibration=tuned, budget=replace(checkpoint.budget, average_llm_gmac=average)))
    print(f"wrote {out}; score it with `deer eval` on starts of its own, since these were chosen by")
    return 0


def planned(arguments: argparse.Namespace) -> list[Chain]:
    """What every trial runs."""
    from deer_sim.calvin.sequences import task_sequences
    from deer_sim.chains import own_wording, sequence_chains, task_chains
    from deer_sim.tasks import FIXTURE_TASKS

    seed, scene = arguments.seed, arguments.scene
    if arguments.tasks is None:
        return sequence_chains(task_sequences(arguments.sequences, seed), seed, scene, own_wording)
    tasks = FIXTURE_TASKS if arguments.tasks == ["fixtures"] else tuple(arguments.tasks)
    return task_chains(scene, tasks, arguments.starts, seed)
