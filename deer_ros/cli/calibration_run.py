"""Calibrates a policy in simulation: it acts under thresholds that are solved again from what it does under them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, load
from deer_policies.deer.conformal import Promise, conformal_rule
from deer_policies.deer.criteria import checked_criterion
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.pacing import corrections
from deer_policies.deer.thresholds import Calibration, mean_cost, rule_for_average
from deer_policies.errors import ConfigError
from deer_policies.training.calibration import Clip, calibrate, encode, replay
from deer_policies.training.episodes import load_episode
from deer_ros.cli.training_data import EpisodePlan, Unaided, make_episodes, plan_round
from deer_sim import instructions
from deer_sim.rollout import MAX_STEPS

logger = logging.getLogger(__name__)

WORDINGS = "validation"
CHECK_SEED = 100
"""Added to the seed of the rounds for the episodes that only check."""


@dataclass(frozen=True)
class CalibrationPlan:
    """What is recorded, and for which thresholds.

    Attributes:
        scenes, tasks: they take turns.
        episodes: of each round, and as many again to check the result on.
        seed: of starts and wordings; each round has its own.
        criterion: name in `criteria.CRITERION_NAMES`.
        average_llm_gmac: mean cost of a step under which the policy acts; None takes the middle between the cheapest
            exit and all layers, and so does a promise.
        promise: the policy acts under the thresholds that are certified to keep it, instead of those for an average.
        max_steps: control steps after which an episode ends unsolved.
        rounds: how often thresholds are solved and the policy then acts under them; values of the last round are kept.
    """

    scenes: tuple[str, ...]
    tasks: tuple[str, ...]
    episodes: int
    seed: int
    criterion: str = "action"
    average_llm_gmac: float | None = None
    promise: Promise | None = None
    max_steps: int = MAX_STEPS
    rounds: int = 2

    def __post_init__(self) -> None:
        checked_criterion(self.criterion)
        for name in ("episodes", "max_steps", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"calibration {name} is {getattr(self, name)}; it must be at least 1")
        if self.rounds >= CHECK_SEED:
            raise ConfigError(f"rounds is {self.rounds}; more than {CHECK_SEED - 1} would use the check's episodes")


def calibrate_in_simulation(policy: Path, plan: CalibrationPlan, folder: Path, workers: int) -> Calibration:
    """Records criterion values on the policy's own steps and checks the thresholds on further episodes.

    In the first round the policy runs all its layers. In each further round it takes the exits that the thresholds
    solved from the round before give, because these decide which states it meets and what the head remembers.

    Args:
        policy: checkpoint; its own calibration, if it has one, is not used.
        plan: see `CalibrationPlan`.
        folder: for the episodes; those that are there already are not made again.
        workers: processes.

    Returns:
        The values of the last round; `source` tells what they are from and what the thresholds did in the check.
    """
    checkpoint = load(policy)
    rollouts = Rollouts(policy, checkpoint, plan, folder, workers)
    costs = CostModel(checkpoint.model.config)
    rule = ThresholdRule.fixed(len(checkpoint.model.exit_layers) - 1)
    for index in range(plan.rounds):
        calibration = rollouts.calibration(plan.seed + index, rule)
        if plan.promise is None:
            calibration = replace(calibration, paced=corrections(calibration, costs))
        rule, expected = solve(calibration, costs, plan)
        logger.info("round %d: thresholds %s, %.5g GMAC a step expected", index, rule.thresholds, expected)
    figures = rollouts.measured(plan.seed + CHECK_SEED, rule)
    requested = expected if plan.promise or plan.average_llm_gmac is None else plan.average_llm_gmac
    source = {**calibration.source, "requested_llm_gmac": requested, **figures, "check_episodes": plan.episodes}
    return replace(calibration, source=source)


def solve(calibration: Calibration, costs: CostModel, plan: CalibrationPlan) -> tuple[ThresholdRule, float]:
    """The rule that the plan is for, and the mean cost of a step that it has on the recorded steps.

    Raises:
        BudgetError: if the plan's average is below the cheapest exit's cost.
    """
    table = calibration.costs(costs, len(calibration.values))
    if plan.promise is not None:
        rule = conformal_rule(calibration, plan.promise)
        return rule, mean_cost(calibration.values, rule.thresholds, table)
    middle = float(table[0].mean() + table[-1].mean()) / 2.0
    average = middle if plan.average_llm_gmac is None else plan.average_llm_gmac
    return rule_for_average(calibration, costs, average, len(calibration.values))


@dataclass(frozen=True)
class Rollouts:
    """Episodes in which one policy acts by itself.

    Attributes:
        policy: its checkpoint.
        checkpoint: the same, loaded.
        plan: scenes, tasks, number and length of the episodes.
        folder: where they are kept.
        workers: processes that make them.
    """

    policy: Path
    checkpoint: Checkpoint
    plan: CalibrationPlan
    folder: Path
    workers: int

    def clips(self, seed: int, rule: ThresholdRule) -> Iterator[Clip]:
        """The episodes of a seed with the policy under a rule, encoded; made where they are not there yet."""
        plan, model = self.plan, self.checkpoint.model.eval()
        each = -(-plan.episodes // (len(plan.scenes) * len(plan.tasks)))
        unaided = Unaided(rule, plan.max_steps)
        folder = self.folder / "episodes" / f"unaided-{self._key(seed, unaided)}"
        plans = plan_round(folder, plan.scenes, plan.tasks, each, seed)[: plan.episodes]
        make_episodes(plans, model.config, self.policy, self.workers, WORDINGS, unaided)
        for item in plans:
            yield encode(model, self.checkpoint.tokenizer, load_episode(item.path, {item.task: (_wording(item),)}))

    def calibration(self, seed: int, rule: ThresholdRule) -> Calibration:
        """Values of the plan's criterion on these episodes."""
        plan = self.plan
        source = {
            "episodes": plan.episodes,
            "seed": seed,
            "scenes": plan.scenes,
            "tasks": plan.tasks,
            "wordings": WORDINGS,
            "thresholds": rule.thresholds,
        }
        return calibrate(self.checkpoint.model.eval(), self.clips(seed, rule), rule, plan.criterion, source)

    def measured(self, seed: int, rule: ThresholdRule) -> dict[str, float]:
        """What a rule's exits cost on these episodes, and how often they broke the plan's promise."""
        model, costs, promise = self.checkpoint.model.eval(), CostModel(self.checkpoint.model.config), self.plan.promise
        spent: list[float] = []
        broken: list[float] = []
        for clip in self.clips(seed, rule):
            found = replay(model, clip, rule)
            taken = found.taken[0]
            spent += [costs.llm_gmac(int(index), clip.tokens) for index in taken]
            if promise is not None:
                breaks = (found.pose_errors > promise.epsilon) | found.gripper_errors
                broken.append(float(breaks[:, 0].gather(0, taken[None]).double().mean()))
        figures = {"achieved_llm_gmac": mean(spent)}
        return figures if promise is None else {**figures, "broken_share": mean(broken)}

    def _key(self, seed: int, unaided: Unaided) -> str:
        """Names all that the episodes depend on, so that a folder never mixes those of two policies or rules."""
        text = f"{self.checkpoint.sha256} {unaided} {seed} {torch.__version__}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _wording(plan: EpisodePlan) -> str:
    return plan.wording(getattr(instructions, WORDINGS)(plan.task))
