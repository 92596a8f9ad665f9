"""The multi-exit policy at run time: runs layers only as far as the exit rule asks, and tells what each step cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.batching import ExactBatches
from deer_policies.deer.budget import GIB, CostModel, blind_exits, enough, fitting_exits, within
from deer_policies.deer.deadline import (
    QUANTILE,
    Clock,
    SegmentEstimate,
    exits_in_time,
)
from deer_policies.deer.exits import ExitRule, ThresholdRule
from deer_policies.deer.precision import held_bytes
from deer_policies.deer.skills import SkillRecogniser
from deer_policies.deer.stepping import Plan, PolicyState, Stepper, initial_state
from deer_policies.deer.thresholds import Calibration, rule_for_average
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.deer.view_reuse import ViewReuse
from deer_policies.errors import BudgetError, ConfigError
from deer_policies.interfaces import (
    ActionChunk,
    Budget,
    ExitReport,
    Observation,
    PolicyInfo,
    Understanding,
    checked_instruction,
)

logger = logging.getLogger(__name__)

REMEMBERED_INSTRUCTIONS = 64
WARM_UP_STEPS = 2
"""First steps, which are slow; they are not measured."""
MEASURED_STEPS = 10
"""Steps through all exits, from which a first latency budget is judged."""


class DeerPolicy:
    """Implements `deer_policies.interfaces.BatchPolicy` for any configuration."""

    def __init__(
        self,
        model: DeerModel,
        tokenizer: Tokenizer,
        calibration: Calibration | None = None,
        budget: Budget | None = None,
        details: dict[str, Any] | None = None,
        weights_sha256: str = "",
        clock: Clock = time.perf_counter,
        skills: SkillRecogniser | None = None,
        name: str | None = None,
    ) -> None:
        """Args:
        model: put into evaluation mode; stays on its device.
        tokenizer: the one that the model was trained with.
        calibration: criterion values; without them an average budget is refused.
        budget: in force from the start; no limits by default.
        details: provenance, for reports.
        weights_sha256: see `PolicyInfo`.
        clock: tells latencies and deadlines.
        skills: judges instructions, see `understanding`; it has no part in a step.
        name: for reports; that of the configuration by default.
        """
        if tokenizer.vocabulary > model.config.language.vocabulary:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocabulary} ids and the model {model.config.language.vocabulary}; "
                "use the tokenizer that the model was trained with"
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.calibration = calibration
        self._skills = skills
        self.costs = CostModel(model.config)
        preprocess = model.config.preprocess
        self._info = PolicyInfo(
            name=name or model.config.name,
            exit_layers=model.exit_layers,
            static_shape=preprocess.static_shape,
            gripper_shape=preprocess.gripper_shape,
            horizon=model.config.head.horizon,
            weights_sha256=weights_sha256,
            details=details or {},
        )
        self._stepper = Stepper(self.model, tokenizer, self._info, clock)
        self._plan = Plan(Budget(), ThresholdRule.fixed(len(model.exit_layers) - 1))
        if budget is not None:
            self.set_budget(budget)

    @property
    def info(self) -> PolicyInfo:
        """What it takes and gives."""
        return self._info

    @property
    def budget(self) -> Budget:
        """The budget in force."""
        return self._plan.budget

    @property
    def exit_rule(self) -> ExitRule:
        """The exit rule in force."""
        return self._plan.rule

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embedding.weight.device

    def set_budget(self, budget: Budget) -> None:
        """Chooses the exits and thresholds for a budget; takes effect at the next step.

        Raises:
            BudgetError: if it can't be met, with the cheapest one that can; nothing changes.
        """
        exits = self._allowed_exits(budget)
        rule = ThresholdRule.fixed(exits - 1)
        if budget.average_llm_gmac is not None:
            rule = self._average_rule(budget.average_llm_gmac, exits)
        if budget.latency_ms is not None:
            fitting_exits("latency_ms", budget.latency_ms, [1e3 * self.segment_estimate().first_exit_s(rule)])
        self._plan = Plan(budget, rule)

    def _average_rule(self, average_llm_gmac: float, exits: int) -> ThresholdRule:
        if self.calibration is None:
            raise BudgetError(
                "this policy has no recorded criterion values to solve an average budget from; use a checkpoint with a "
                "calibration (`deer calibrate` makes one), or limit peak_llm_gmac instead"
            )
        try:
            rule, expected = rule_for_average(self.calibration, self.costs, average_llm_gmac, exits)
        except BudgetError as error:
            raise BudgetError(f"budget average_llm_gmac: {error}") from error
        logger.info(
            "average budget of %.4g GMAC: %.4g expected from the recorded steps%s",
            average_llm_gmac,
            expected,
            self.calibration.checked,
        )
        return rule

    def set_exit_rule(self, rule: ExitRule) -> None:
        """Uses this rule at any cost; the budget in force becomes one without limits.

        Raises:
            ConfigError: if it wants more exits than the model has.
        """
        if len(rule.thresholds) > len(self.info.exit_layers):
            raise ConfigError(
                f"the exit rule has {len(rule.thresholds)} thresholds but the policy {len(self.info.exit_layers)} exits"
            )
        self._plan = Plan(Budget(), rule)

    @property
    def exits_in_use(self) -> int:
        """How many exits, from the shallowest, a step may reach under the exit rule in force."""
        return len(self.exit_rule.thresholds)

    def limit_exits(self, exits: int) -> None:
        """Gives up the exits behind the first so many until `set_budget` is called; see `ReduciblePolicy`.

        Their layers stay loaded.

        Raises:
            BudgetError: for exits that come before any layer has seen the images; nothing changes.
        """
        least = min(blind_exits(self.model.config) + 1, len(self.info.exit_layers))
        if exits < least:
            raise BudgetError(
                f"the policy can't do with {exits} exits: it needs at least {least}, the first that has seen the images"
            )
        self._plan = replace(self._plan, rule=self._plan.rule.limited(exits))

    def set_view_reuse(self, reuse: ViewReuse) -> None:
        """Chooses which views are encoded again, under any budget and exit rule; takes effect at the next step."""
        self._stepper.view_reuse = reuse

    def set_batch_rows(self, rows: int) -> None:
        """What a sample alone is computed as, which all batches then agree with; see `ExactBatches`.

        Raises:
            ConfigError: if it is less than 1.
        """
        self._stepper.batches = ExactBatches(rows)

    def understanding(self, instruction: str) -> Understanding | None:
        """What it would make of an instruction; None if its checkpoint has no recogniser of skills.

        It may be asked from any thread, also during a step.

        Raises:
            ConfigError: for what is no instruction at all; see `checked_instruction`.
        """
        text = checked_instruction(instruction)
        return None if self._skills is None else self._skills.understand([text])[0]

    def initial_state(self) -> PolicyState:
        """The state before the first step of a subtask."""
        return initial_state(self.model)

    def step(self, observation: Observation, state: PolicyState) -> tuple[ActionChunk, PolicyState, ExitReport]:
        """One control step; see `Policy.step`.

        Raises:
            ConfigError: if the observation does not fit `info` or the state is not one of this policy's.
            BudgetError: if the instruction is so long that the first exit is over the peak budget.
        """
        return self.step_batch([observation], [state])[0]

    def step_batch(
        self, observations: Sequence[Observation], states: Sequence[PolicyState]
    ) -> list[tuple[ActionChunk, PolicyState, ExitReport]]:
        """One control step of several episodes at once; see `BatchPolicy.step_batch`.

        Each sample leaves the batch at its own exit: the layers behind it run on the others only. Under a latency
        budget, which is about one step alone, they run one after the other.
        """
        plan = self._plan
        if plan.budget.latency_ms is None:
            return self._stepper.run(observations, states, plan)
        pairs = zip(observations, states, strict=True)
        return [self._stepper.run([observation], [state], plan)[0] for observation, state in pairs]

    def _llm_gmac(self, tokens: int | None = None) -> list[float]:
        return [self.costs.llm_gmac(index, tokens) for index in range(len(self.info.exit_layers))]

    def _allowed_exits(self, budget: Budget) -> int:
        exits = fitting_exits("peak_llm_gmac", budget.peak_llm_gmac, self._llm_gmac())
        limit = budget.peak_memory_gib
        if limit is not None and not within(self.memory_gib, limit):
            raise BudgetError(
                f"budget peak_memory_gib = {limit:.6g} can't be met: the loaded layers need {enough(self.memory_gib)}; "
                "allow that, or load fewer with load_policy(..., peak=Budget(peak_memory_gib=...))"
            )
        return exits

    @cached_property
    def memory_gib(self) -> float:
        """Weights that are loaded, and activations; libraries and their workspaces come on top."""
        activations = self.costs.activations() * self.model.embedding.weight.element_size()
        return (held_bytes(self.model) + activations) / GIB

    def segment_estimate(self, quantile: float = QUANTILE) -> SegmentEstimate:
        """How long each segment of a step takes here, in this share of the last steps; the first call runs some."""
        return self._stepper.estimate(quantile)

    def exits_in_time(self, latency_ms: float) -> int:
        """How many of the configuration's exits are worth loading under a limit on latency, loaded now or not."""
        exits = range(len(self.model.config.language.exit_layers))
        gmac = [self.costs.llm_gmac(index) for index in exits]
        return exits_in_time(self.segment_estimate(quantile=0.5), gmac, latency_ms / 1e3)
