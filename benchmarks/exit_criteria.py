"""Compares exit criteria at equal average cost: distance of the exited actions from those of all layers.

Run: python benchmarks/exit_criteria.py --policy deer-nano --episodes 320 --work .cache/calibrate

The policy acts by itself, all layers at every step. Thresholds are solved on the first half of the episodes, each
criterion on the head states that its own exits lead to and at the pace of each episode, and judged on the second half.
'conformal' is the family of thresholds that `deer_policies.deer.conformal` tests, with the action criterion and without
a pace: each exit takes what it can with at most a given share of its steps beyond EPSILON, chosen for the cost.
'deadline' runs as deep as the time allows on a machine whose speed varies from step to step (a factor is drawn, with a
logarithm of standard deviation SLOWDOWN); segments take time as they take computation, and the deadline is chosen for
the cost. The second table gives promises. `paper_tables.py` compares success in simulation.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import find, load
from deer_policies.deer.conformal import Promise, cautious_thresholds, conformal_rule
from deer_policies.deer.criteria import CRITERION_NAMES, Candidate
from deer_policies.deer.deadline import DeadlineRule, SegmentEstimate
from deer_policies.deer.exits import Decision, ExitRule, ThresholdRule
from deer_policies.deer.pacing import solved_for
from deer_policies.deer.thresholds import Calibration, mean_cost, rule_for_average
from deer_policies.training.calibration import Clip, calibrate, replay
from deer_ros.cli.calibration_run import CalibrationPlan, Rollouts
from deer_sim.tasks import TASKS

EPSILON = 0.05
SHARES = (0.3, 0.4, 0.6, 0.8)
"""Average costs, as shares of all layers'."""
PASSES = 2
"""How often thresholds are solved again on the head states that they lead to."""
BISECTIONS = 20
SLOWDOWN = 0.4
PROMISES = ((0.015, 0.2), (0.02, 0.2), (0.02, 0.3), (0.05, 0.2))
"""EPSILON and ALPHA, each with a confidence of 90 %."""


@dataclass(frozen=True)
class VaryingMachine:
    """The deadline rule on a machine of varying speed: what is predicted is the usual time of each segment."""

    due_s: float
    usual: SegmentEstimate

    @property
    def thresholds(self) -> tuple[float, ...]:
        """It compares nothing."""
        return ThresholdRule.fixed(len(self.usual.layers_s) - 1).thresholds

    def decide(self, candidates: Sequence[Candidate], step: int) -> Decision:
        """See `ExitRule`. The speed is drawn from the step."""
        slowness = float(np.random.default_rng(step).lognormal(0.0, SLOWDOWN))
        gone_s = slowness * (self.usual.encode_s + sum(self.usual.layers_s[: len(candidates) - 1]))
        inner = ThresholdRule.fixed(len(self.usual.layers_s) - 1)
        return DeadlineRule(inner, self.due_s, self.usual, lambda: gone_s).decide(candidates, step)

    def limited(self, exits: int) -> VaryingMachine:
        """All exits are in use here."""
        return self


def deadline_rule(average: float, model: DeerModel, clips: Sequence[Clip], costs: CostModel) -> VaryingMachine:
    """The deadline at which the language model costs this on average."""
    gmac = [0.0, *(costs.llm_gmac(index) for index in range(len(model.exit_layers)))]
    encode_s = costs.total_gmac(0, head_runs=0) - gmac[1]
    usual = SegmentEstimate(encode_s, tuple(b - a for a, b in pairwise(gmac)), costs.head_mac / 1e9, 0.0)
    low, high = 0.0, 4.0 * costs.total_gmac(len(model.exit_layers) - 1)
    for _ in range(BISECTIONS // 2):
        middle = (low + high) / 2.0
        spent = judge(model, clips, VaryingMachine(middle, usual), costs).cost
        low, high = (middle, high) if spent <= average else (low, middle)
    return VaryingMachine(low, usual)


@dataclass(frozen=True)
class Judged:
    """What a rule did on the second half: mean cost in GMAC and as a share of all layers', and how far actions were."""

    cost: float
    cost_share: float
    pose_rms: float
    gripper_differs: float
    beyond_epsilon: float


def solved(name: str, average: float, calibration: Calibration, costs: CostModel) -> ThresholdRule:
    """Thresholds of a criterion, or of the conformal family, for an average cost on these values."""
    exits = len(calibration.values)
    if name != "conformal":
        paced = replace(calibration, paced=((average, solved_for(calibration, costs, average)),))
        return rule_for_average(paced, costs, average, exits)[0]
    assert calibration.errors is not None
    broken, prices = calibration.errors > EPSILON, calibration.costs(costs, exits)
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        thresholds = cautious_thresholds(calibration.values, broken, middle)
        low, high = (low, middle) if mean_cost(calibration.values, thresholds, prices) <= average else (middle, high)
    return ThresholdRule(cautious_thresholds(calibration.values, broken, high))


def solved_on_its_own_states(
    name: str, average: float, model: DeerModel, clips: Sequence[Clip], costs: CostModel
) -> ExitRule:
    """Solves, replays the clips under what was solved, and solves again."""
    if name == "deadline":
        # Some clips are enough to know how speeds and lengths of instructions mix.
        return deadline_rule(average, model, clips[::5], costs)
    criterion = "action" if name == "conformal" else name
    rule = ThresholdRule.fixed(len(model.exit_layers) - 1)
    for _ in range(PASSES):
        rule = solved(name, average, calibrate(model, clips, rule, criterion, {}), costs)
    return rule


def judge(
    model: DeerModel, clips: Sequence[Clip], rule: ExitRule, costs: CostModel, epsilon: float = EPSILON
) -> Judged:
    """Replays clips under a rule."""
    spent = full = 0.0
    pose, gripper = [], []
    for clip in clips:
        found = replay(model, clip, rule)
        taken = found.taken
        spent += sum(costs.llm_gmac(int(index), clip.tokens) for index in taken[0])
        full += costs.llm_gmac(len(model.exit_layers) - 1, clip.tokens) * taken.shape[1]
        pose.append(found.pose_errors.gather(0, taken[None])[0, 0])
        gripper.append(found.gripper_errors.gather(0, taken[None])[0, 0])
    errors, differs = torch.cat(pose), torch.cat(gripper)
    beyond = (errors > epsilon) | differs
    return Judged(
        spent / len(errors),
        spent / full,
        float(errors.square().mean().sqrt()),
        float(differs.float().mean()),
        float(beyond.float().mean()),
    )


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--episodes", type=int, default=320)
    parser.add_argument("--seed", type=int, default=700, help="of the episodes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(".cache/calibrate"), help="folder for the episodes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    path = find(arguments.policy)
    checkpoint = load(path)
    model, costs = checkpoint.model.eval(), CostModel(checkpoint.model.config)
    everything = ThresholdRule.fixed(len(model.exit_layers) - 1)
    tasks = tuple(checkpoint.provenance.get("recipe", {}).get("tasks") or TASKS)
    plan = CalibrationPlan(("D",), tasks, arguments.episodes, arguments.seed)
    rollouts = Rollouts(path, checkpoint, plan, arguments.work, arguments.workers)
    clips = list(rollouts.clips(arguments.seed, everything))
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(arguments.seed)).tolist()
    solving, judging = ([clips[index] for index in part] for part in (order[::2], order[1::2]))
    steps = [sum(clip.proprioception.shape[1] for clip in part) for part in (solving, judging)]
    print(f"{len(solving)} episodes with {steps[0]} steps to solve on, {len(judging)} with {steps[1]} to judge on\n")
    full = [costs.llm_gmac(len(model.exit_layers) - 1, clip.tokens) for clip in solving]
    weights = [clip.proprioception.shape[1] for clip in solving]
    mean_full = sum(cost * weight for cost, weight in zip(full, weights, strict=True)) / sum(weights)
    print(f"| asked for | criterion | spent | pose, RMS | gripper differs | beyond {EPSILON} or gripper differs |")
    print("|---|---|---|---|---|---|")
    for share in SHARES:
        for name in (*CRITERION_NAMES, "deadline", "conformal"):
            rule = solved_on_its_own_states(name, share * mean_full, model, solving, costs)
            found = judge(model, judging, rule, costs)
            print(
                f"| {share:.0%} | {name} | {found.cost_share:.1%} | {found.pose_rms:.4f} | "
                f"{found.gripper_differs:.2%} | {found.beyond_epsilon:.1%} |"
            )
    print("\n| promise | spent | broken on the other half |\n|---|---|---|")
    for epsilon, alpha in PROMISES:
        promise = Promise(epsilon, alpha, 0.1)
        rule = everything
        for _ in range(PASSES):
            rule = conformal_rule(calibrate(model, solving, rule, "action", {}), promise)
        found = judge(model, judging, rule, costs, epsilon)
        print(
            f"| within {epsilon} on {1 - alpha:.0%} of the steps, confidence 90 % | {found.cost_share:.1%} | "
            f"{found.beyond_epsilon:.1%} |"
        )


if __name__ == "__main__":
    main()
