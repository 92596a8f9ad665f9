"""The multi-exit policy at run time: runs layers only as far as the exit rule asks, and tells what each step cost."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel, Text
from deer_policies.deer.budget import GIB, CostModel, enough, fitting_exits, within
from deer_policies.deer.criteria import Candidate
from deer_policies.deer.deadline import (
    QUANTILE,
    Clock,
    DeadlineRule,
    SegmentEstimate,
    SegmentTimes,
    Stopwatch,
    exits_in_time,
)
from deer_policies.deer.exits import ALWAYS, ExitRule, ThresholdRule, run_to_exit
from deer_policies.deer.precision import held_bytes
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.thresholds import Calibration, rule_for_average
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.deer.view_reuse import EncodedViews, ViewReuse, encode_views
from deer_policies.errors import BudgetError, ConfigError
from deer_policies.interfaces import (
    PROPRIOCEPTION_SIZE,
    Action,
    ActionChunk,
    Budget,
    ExitReport,
    Observation,
    PolicyInfo,
)

logger = logging.getLogger(__name__)

REMEMBERED_INSTRUCTIONS = 64
WARM_UP_STEPS = 2
"""First steps, which are slow; they are not measured."""
MEASURED_STEPS = 10
"""Steps through all exits, from which a first latency budget is judged."""


@dataclass(frozen=True)
class PolicyState:
    """What a subtask has left behind.

    Attributes:
        head: its recurrent state.
        step: how many were taken.
        views: as last encoded.
        surplus_gmac: what the exits taken cost more than the average budget; see `exits.Pace`.
    """

    head: HeadState
    step: int = 0
    views: EncodedViews | None = None
    surplus_gmac: float = 0.0


@dataclass(frozen=True)
class _Plan:
    """The budget in force and the rule that keeps it; replaced as a whole, so that a step sees one or the other."""

    budget: Budget
    rule: ExitRule


class DeerPolicy:
    """Implements `deer_policies.interfaces.Policy` for any configuration."""

    def __init__(
        self,
        model: DeerModel,
        tokenizer: Tokenizer,
        calibration: Calibration | None = None,
        budget: Budget | None = None,
        details: dict[str, Any] | None = None,
        weights_sha256: str = "",
        clock: Clock = time.perf_counter,
    ) -> None:
        """Args:
        model: put into evaluation mode; stays on its device.
        tokenizer: the one that the model was trained with.
        calibration: criterion values; without them an average budget is refused.
        budget: in force from the start; no limits by default.
        details: provenance, for reports.
        weights_sha256: of the file that the weights came from.
        clock: tells latencies and deadlines.
        """
        if tokenizer.vocabulary > model.config.language.vocabulary:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocabulary} ids and the model {model.config.language.vocabulary}; "
                "use the tokenizer that the model was trained with"
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.calibration = calibration
        self.costs = CostModel(model.config)
        preprocess = model.config.preprocess
        self._info = PolicyInfo(
            name=model.config.name,
            exit_layers=model.exit_layers,
            static_shape=preprocess.static_shape,
            gripper_shape=preprocess.gripper_shape,
            weights_sha256=weights_sha256,
            details=details or {},
        )
        self._texts: OrderedDict[str, Text] = OrderedDict()
        self._clock = clock
        self._times = SegmentTimes(len(model.exit_layers))
        self._warm = False
        self._view_reuse = ViewReuse()
        self._plan = _Plan(Budget(), ThresholdRule.fixed(len(model.exit_layers) - 1))
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
        self._plan = _Plan(budget, rule)

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
        self._plan = _Plan(Budget(), rule)

    def set_view_reuse(self, reuse: ViewReuse) -> None:
        """Chooses which views are encoded again, under any budget and exit rule; takes effect at the next step."""
        self._view_reuse = reuse

    def initial_state(self) -> PolicyState:
        """The state before the first step of a subtask."""
        with torch.inference_mode():
            return PolicyState(self.model.head.initial_state(1))

    def step(self, observation: Observation, state: PolicyState) -> tuple[ActionChunk, PolicyState, ExitReport]:
        """One control step; see `Policy.step`.

        Raises:
            ConfigError: if the observation does not fit `info` or the state is not one of this policy's.
            BudgetError: if the instruction is so long that the first exit is over the peak budget.
        """
        return self._step(observation, state, self._plan)

    def _step(
        self, observation: Observation, state: PolicyState, plan: _Plan
    ) -> tuple[ActionChunk, PolicyState, ExitReport]:
        started = self._now()
        watch = Stopwatch(self.model, self._now)
        observation = observation.checked(self.info)
        if not isinstance(state, PolicyState):
            raise ConfigError(f"state is a {type(state).__name__}; pass initial_state() or what the last step returned")
        with torch.inference_mode():
            text = self._text(observation.instruction)
            tokens = text.embedding.shape[1]
            rule = plan.rule
            if isinstance(rule, ThresholdRule):
                rule = rule.at_pace(state.surplus_gmac)
            if plan.budget.peak_llm_gmac is not None:
                limit = plan.budget.peak_llm_gmac
                rule = rule.limited(fitting_exits("peak_llm_gmac", limit, self._llm_gmac(tokens)))
            if plan.budget.latency_ms is not None:
                due_s = started + plan.budget.latency_ms / 1e3
                rule = DeadlineRule(rule, due_s, self._times.estimate(), self._now)
            images = stack_views(observation.rgb_static, observation.rgb_gripper, self.model.config.preprocess)
            views = encode_views(images, state.views, self._view_reuse, self._encode)
            media = views.latents.flatten(0, 1)[None]
            watch.encode_s = self._now() - started
            robot = torch.from_numpy(observation.proprioception)[None, None].to(self.device)
            candidates, distances = run_to_exit(watch, text, media, robot, state.head, rule, state.step)
            pose, gripper_logit, head_state = candidates[-1].output
            values = torch.cat([pose[0], gripper_logit]).float().cpu().numpy()
            if self.model.config.official:
                values = values.astype(np.float16)
        action = Action.clipped(values)
        total_s = self._now() - started
        self._times.add(watch, total_s)
        exit_index = len(candidates) - 2
        report = self._report(exit_index, candidates, distances, rule, tokens, views.encoded, 1e3 * total_s)
        chunk = ActionChunk(action.values[None], self.info.rate_hz)
        surplus = state.surplus_gmac
        if isinstance(plan.rule, ThresholdRule):
            # At the reference length: a long instruction is not made up for by less depth.
            surplus = plan.rule.surplus_after(surplus, self.costs.llm_gmac(exit_index))
        return chunk, PolicyState(head_state, state.step + 1, views, surplus), report

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.segments.encode(images.to(self.device))

    def _now(self) -> float:
        """The clock, when the device has done what it was told to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._clock()

    def _report(
        self,
        exit_index: int,
        candidates: list[Candidate],
        distances: list[float],
        rule: ExitRule,
        tokens: int,
        encoded_views: tuple[bool, ...],
        latency_ms: float,
    ) -> ExitReport:
        last = len(self.model.config.language.exit_layers) - 1
        head_runs = sum(candidate.evaluated for candidate in candidates)
        return ExitReport(
            exit_index=exit_index,
            exit_layer=self.info.exit_layers[exit_index],
            distances=tuple(distances),
            thresholds=rule.thresholds,
            llm_gmac=self.costs.llm_gmac(exit_index, tokens),
            total_gmac=self.costs.total_gmac(exit_index, tokens, head_runs, sum(encoded_views)),
            full_llm_gmac=self.costs.llm_gmac(last, tokens),
            full_total_gmac=self.costs.total_gmac(last, tokens),
            latency_ms=latency_ms,
            encoded_views=encoded_views,
        )

    def _text(self, instruction: str) -> Text:
        """The embedded instruction; the last few are remembered because they stay the same for many steps."""
        text = self._texts.get(instruction)
        if text is None:
            ids, mask = self.tokenizer.encode_batch([instruction])
            text = self.model.text(ids.to(self.device), mask.to(self.device))
            self._texts[instruction] = text
            if len(self._texts) > REMEMBERED_INSTRUCTIONS:
                self._texts.popitem(last=False)
        return text

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
        if not self._warm:
            exits = len(self.info.exit_layers)
            # A distance is never negative, so this checks each exit without taking it.
            everything = _Plan(Budget(), ThresholdRule((-1.0,) * (exits - 1) + (ALWAYS,)))
            observation, state = example_observation(self.info), self.initial_state()
            for index in range(WARM_UP_STEPS + MEASURED_STEPS):
                if index == WARM_UP_STEPS:
                    self._times = SegmentTimes(exits)
                self._step(observation, state, everything)
            self._warm = True
        return self._times.estimate(quantile)

    def exits_in_time(self, latency_ms: float) -> int:
        """How many of the configuration's exits are worth loading under a limit on latency, loaded now or not."""
        exits = range(len(self.model.config.language.exit_layers))
        gmac = [self.costs.llm_gmac(index) for index in exits]
        return exits_in_time(self.segment_estimate(quantile=0.5), gmac, latency_ms / 1e3)


def example_observation(info: PolicyInfo, instruction: str = "push the sliding door to the left side") -> Observation:
    """An observation that the policy accepts, grey images and a zero robot state: for warm-up and tests."""
    grey = 128
    return Observation(
        np.full(info.static_shape, grey, np.uint8),
        np.full(info.gripper_shape, grey, np.uint8),
        np.zeros(PROPRIOCEPTION_SIZE, np.float32),
        instruction,
        0.0,
    )
