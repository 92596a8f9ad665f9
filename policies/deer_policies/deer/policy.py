"""The multi-exit policy at run time: runs layers only as far as the exit rule asks, and tells what each step cost."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel, Text
from deer_policies.deer.batching import ExactBatches
from deer_policies.deer.budget import GIB, CostModel, enough, fitting_exits, within
from deer_policies.deer.deadline import (
    QUANTILE,
    Clock,
    DeadlineRule,
    SegmentEstimate,
    SegmentTimes,
    Stopwatch,
    exits_in_time,
)
from deer_policies.deer.exits import ALWAYS, ExitRule, ExitWalk, ThresholdRule
from deer_policies.deer.precision import held_bytes
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.thresholds import Calibration, rule_for_average
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.deer.view_reuse import EncodedViews, ViewReuse, views_to_encode, with_encoded
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


@dataclass
class _Sample:
    """One observation on its way through a step."""

    state: PolicyState
    text: Text
    rule: ExitRule
    walk: ExitWalk
    images: torch.Tensor
    hidden: torch.Tensor
    feature: torch.Tensor = field(default_factory=torch.Tensor)
    views: EncodedViews | None = None

    @property
    def media(self) -> torch.Tensor:
        """Visual latents (1, views * latents, vision dim)."""
        assert self.views is not None
        return self.views.latents.flatten(0, 1)[None]


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
        self._batches = ExactBatches()
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

    def set_batch_rows(self, rows: int) -> None:
        """What a sample alone is computed as, which all batches then agree with; see `ExactBatches`.

        Raises:
            ConfigError: if it is less than 1.
        """
        self._batches = ExactBatches(rows)

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
            return self._steps(observations, states, plan)
        pairs = zip(observations, states, strict=True)
        return [self._steps([observation], [state], plan)[0] for observation, state in pairs]

    def _steps(
        self, observations: Sequence[Observation], states: Sequence[PolicyState], plan: _Plan
    ) -> list[tuple[ActionChunk, PolicyState, ExitReport]]:
        started = self._now()
        watch = Stopwatch(self._now)
        with torch.inference_mode():
            samples = [
                self._begun(observation, state, plan, watch, started)
                for observation, state in zip(observations, states, strict=True)
            ]
            self._encode(samples)
            watch.encode_s = self._now() - started
            live = samples
            for index, segment in enumerate(self.model.segments.layers):
                began = self._now()
                inputs = [(item.hidden, item.text.mask, item.text.bias, item.media) for item in live]
                for item, (hidden, feature) in zip(live, self._batches.run(index, segment, inputs), strict=True):
                    item.hidden, item.feature = hidden, feature
                watch.layers(index, began)
                live = [item for item in live if item.walk.goes_on(item.feature)]
                if not live:
                    break
            actions = [self._action(item.walk) for item in samples]
        total_s = self._now() - started
        if len(samples) == 1:
            self._times.add(watch, total_s)
        return [
            (
                ActionChunk(action.values[None], self.info.rate_hz),
                self._after(item, plan.rule),
                self._report(item, 1e3 * total_s),
            )
            for item, action in zip(samples, actions, strict=True)
        ]

    def _begun(
        self, observation: Observation, state: PolicyState, plan: _Plan, watch: Stopwatch, started: float
    ) -> _Sample:
        observation = observation.checked(self.info)
        if not isinstance(state, PolicyState):
            raise ConfigError(f"state is a {type(state).__name__}; pass initial_state() or what the last step returned")
        text = self._text(observation.instruction)
        rule = plan.rule
        if isinstance(rule, ThresholdRule):
            rule = rule.at_pace(state.surplus_gmac)
        if plan.budget.peak_llm_gmac is not None:
            costs = self._llm_gmac(text.embedding.shape[1])
            rule = rule.limited(fitting_exits("peak_llm_gmac", plan.budget.peak_llm_gmac, costs))
        if plan.budget.latency_ms is not None:
            due_s = started + plan.budget.latency_ms / 1e3
            rule = DeadlineRule(rule, due_s, self._times.estimate(), self._now)
        robot = torch.from_numpy(observation.proprioception)[None, None].to(self.device)
        images = stack_views(observation.rgb_static, observation.rgb_gripper, self.model.config.preprocess)
        walk = ExitWalk(watch.timed_head(self.model.head), robot, state.head, rule, state.step)
        return _Sample(state, text, rule, walk, images, text.embedding)

    def _encode(self, samples: Sequence[_Sample]) -> None:
        """Gives the samples their visual latents; views that have not changed keep theirs."""
        fresh = [views_to_encode(item.images, item.state.views, self._view_reuse) for item in samples]
        inputs = [(item.images[views][None],) for item, views in zip(samples, fresh, strict=True) if views]
        made = iter(self._batches.run("encode", self._encoded, inputs))
        for item, views in zip(samples, fresh, strict=True):
            latents = next(made)[0][0] if views else None
            item.views = with_encoded(item.images, item.state.views, views, latents)

    def _encoded(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """(samples, views, 3, height, width) uint8 -> latents (samples, views, latents, vision dim)."""
        latents = self.model.segments.encode(images.flatten(0, 1).to(self.device))
        return (latents.unflatten(0, images.shape[:2]),)

    def _action(self, walk: ExitWalk) -> Action:
        pose, gripper_logit, _ = walk.candidates[-1].output
        values = torch.cat([pose[0], gripper_logit]).float().cpu().numpy()
        return Action.clipped(values.astype(np.float16) if self.model.config.official else values)

    def _after(self, item: _Sample, rule: ExitRule) -> PolicyState:
        surplus, taken = item.state.surplus_gmac, item.walk.candidates
        if isinstance(rule, ThresholdRule):
            # At the reference length: a long instruction is not made up for by less depth.
            surplus = rule.surplus_after(surplus, self.costs.llm_gmac(len(taken) - 2))
        return PolicyState(taken[-1].output[2], item.state.step + 1, item.views, surplus)

    def _now(self) -> float:
        """The clock, when the device has done what it was told to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._clock()

    def _report(self, item: _Sample, latency_ms: float) -> ExitReport:
        assert item.views is not None
        exit_index = len(item.walk.candidates) - 2
        tokens = item.text.embedding.shape[1]
        last = len(self.model.config.language.exit_layers) - 1
        head_runs = sum(candidate.evaluated for candidate in item.walk.candidates)
        return ExitReport(
            exit_index=exit_index,
            exit_layer=self.info.exit_layers[exit_index],
            distances=tuple(item.walk.distances),
            thresholds=item.rule.thresholds,
            llm_gmac=self.costs.llm_gmac(exit_index, tokens),
            total_gmac=self.costs.total_gmac(exit_index, tokens, head_runs, sum(item.views.encoded)),
            full_llm_gmac=self.costs.llm_gmac(last, tokens),
            full_total_gmac=self.costs.total_gmac(last, tokens),
            latency_ms=latency_ms,
            encoded_views=item.views.encoded,
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
                self._steps([observation], [state], everything)
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
