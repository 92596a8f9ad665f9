"""`deer eval`: success of a policy on single subtasks from random starts, with what it cost."""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_policies.deer.precision import PRECISIONS
from deer_ros.cli.budget_options import PEAKS, add_average, add_peaks, budget_asked_for
from deer_ros.cli.calibrate import add_promise

if TYPE_CHECKING:
    from deer_policies.deer.exits import ExitRule
    from deer_policies.deer.policy import DeerPolicy
    from deer_policies.interfaces import Budget

HELP = "score a policy in simulation: success per task, exits taken and compute spent"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--scene", default="D", help="PlayTable scene: A, B, C or D")
    parser.add_argument(
        "--tasks", nargs="+", default=["fixtures"], help="task names, or 'fixtures' for the eight of them"
    )
    parser.add_argument("--starts", type=int, default=25, help="random starts for each task")
    parser.add_argument(
        "--seed", type=int, default=1000, help="of starts and wordings; keep it apart from training seeds"
    )
    depth = parser.add_mutually_exclusive_group()
    add_average(depth)
    depth.add_argument("--fixed-exit", type=int, help="always take this exit (0 is the shallowest, -1 the deepest)")
    add_promise(depth)
    add_peaks(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="how the weights are held")
    parser.add_argument(
        "--reuse-views-below",
        type=float,
        default=0.0,
        help="don't encode a camera's image again if its pixels (0..255) differ by less than this on average from the "
        "image that was encoded last; 0: always encode",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--max-steps", type=int, default=360, help="control steps before a trial counts as failed")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for results.jsonl (resumed from) and report.json"
    )


def make_policy(
    name: str,
    precision: str = "float32",
    reuse_views_below: float = 0.0,
    budget: Budget | None = None,
    rule: ExitRule | None = None,
) -> DeerPolicy:
    """Builds the policy inside a worker, on one thread, with the budget of its checkpoint, another, or an exit rule."""
    import torch

    from deer_policies.deer.checkpoint import load_policy
    from deer_policies.deer.view_reuse import ViewReuse

    torch.set_num_threads(1)
    policy = load_policy(name, peak=budget, precision=precision)
    policy.set_view_reuse(ViewReuse(reuse_views_below))
    if rule is not None:
        policy.set_exit_rule(rule)
    return policy


def depth_asked_for(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `make_policy` that set the depth."""
    from deer_policies.deer.checkpoint import load, read_config
    from deer_policies.deer.conformal import Promise, conformal_rule
    from deer_policies.deer.exits import ThresholdRule
    from deer_policies.errors import ConfigError

    budget = budget_asked_for(arguments)
    if budget is not None:
        if arguments.fixed_exit is not None or arguments.conformal is not None:
            raise ConfigError(f"--fixed-exit and --conformal stand for themselves; leave out {', '.join(PEAKS)}")
        return {"budget": budget}
    if arguments.fixed_exit is not None:
        exits = len(read_config(arguments.policy).language.exit_layers)
        return {"rule": ThresholdRule.fixed(range(exits)[arguments.fixed_exit])}
    if arguments.conformal is not None:
        calibration = load(arguments.policy).calibration
        if calibration is None:
            raise ConfigError(f"{arguments.policy} has no calibration; make one with `deer calibrate`")
        return {"rule": conformal_rule(calibration, Promise(*arguments.conformal))}
    return {}


def run(arguments: argparse.Namespace) -> int:
    """Runs the trials with a running score and writes the report."""
    from deer_sim.evaluation import evaluate, summarise, trials
    from deer_sim.tasks import FIXTURE_TASKS

    tasks = FIXTURE_TASKS if arguments.tasks == ["fixtures"] else tuple(arguments.tasks)
    plan = trials(arguments.scene, tasks, arguments.starts, arguments.seed)
    depth = depth_asked_for(arguments)
    factory = functools.partial(
        make_policy, arguments.policy, arguments.precision, arguments.reuse_views_below, **depth
    )
    factory()
    outcomes = []
    started = time.monotonic()
    for outcome in evaluate(plan, factory, arguments.out / "results.jsonl", arguments.workers, arguments.max_steps):
        outcomes.append(outcome)
        rate = sum(item.success for item in outcomes) / len(outcomes)
        left_s = (time.monotonic() - started) / len(outcomes) * (len(plan) - len(outcomes))
        print(f"{len(outcomes)}/{len(plan)}  {rate:6.1%} solved  {left_s:4.0f} s left  {outcome.key} {outcome.success}")
    report = {"settings": {**vars(arguments), "out": str(arguments.out)}, **summarise(outcomes)}
    report["settings"].pop("run", None)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print_report(report)
    return 0


def print_report(report: dict[str, Any]) -> None:
    """Prints the table of tasks and the cost."""
    for task, row in [*report["per_task"].items(), ("all", report["all"])]:
        low, high = row["interval"]
        print(
            f"{task:24s} {row['success']:4d}/{row['attempts']:<4d} {row['rate']:6.1%} "
            f"[{low:.1%}, {high:.1%}]  {row['mean_steps']:5.0f} steps"
        )
    print(
        f"language model: {report['mean_llm_gmac']:.4f} GMAC a step, {report['llm_share']:.1%} of all layers "
        f"({report['mean_exit_layers']:.2f} layers on average); whole policy: {report['mean_total_gmac']:.4f} GMAC, "
        f"{report['total_share']:.1%}"
    )
