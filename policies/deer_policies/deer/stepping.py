"""One control step of several episodes at once: each goes from exit to exit until its rule stops, then acts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel, Text
from deer_policies.deer.batching import ExactBatches
from deer_policies.deer.budget import CostModel, fitting_exits
from deer_policies.deer.deadline import QUANTILE, Clock, DeadlineRule, SegmentEstimate, SegmentTimes, Stopwatch
from deer_policies.deer.exits import ALWAYS, ExitRule, ExitWalk, ThresholdRule
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.deer.view_reuse import EncodedViews, ViewReuse, views_to_encode, with_encoded
from deer_policies.errors import ConfigError
from deer_policies.interfaces import (
    POSE_SIZE,
    PROPRIOCEPTION_SIZE,
    Action,
    ActionChunk,
    Budget,
    ExitReport,
    Observation,
    PolicyInfo,
)

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
class Plan:
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


class Stepper:
    """Runs steps of one model.

    Attributes:
        batches: what samples share.
        view_reuse: which views are encoded again.
        texts: the instructions of the last steps, embedded.
    """

    def __init__(self, model: DeerModel, tokenizer: Tokenizer, info: PolicyInfo, clock: Clock) -> None:
        """Args:
        model: in evaluation mode.
        tokenizer: the one that the model was trained with.
        info: what observations are checked against.
        clock: tells latencies and deadlines.
        """
        self.batches = ExactBatches()
        self.view_reuse = ViewReuse()
        self.texts: OrderedDict[str, Text] = OrderedDict()
        self._model = model
        self._tokenizer = tokenizer
        self._info = info
        self._costs = CostModel(model.config)
        self._clock = clock
        self._times = SegmentTimes(len(model.exit_layers))
        self._warm = False

    def run(
        self, observations: Sequence[Observation], states: Sequence[PolicyState], plan: Plan
    ) -> list[tuple[ActionChunk, PolicyState, ExitReport]]:
        """One step of each episode under a plan; see `DeerPolicy.step_batch`."""
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
            for index, segment in enumerate(self._model.segments.layers):
                began = self._now()
                inputs = [(item.hidden, item.text.mask, item.text.bias, item.media) for item in live]
                for item, (hidden, feature) in zip(live, self.batches.run(index, segment, inputs), strict=True):
                    item.hidden, item.feature = hidden, feature
                watch.layers(index, began)
                live = [item for item in live if item.walk.goes_on(item.feature)]
                if not live:
                    break
            chunks = [self._chunk(item.walk) for item in samples]
        total_s = self._now() - started
        if len(samples) == 1:
            self._times.add(watch, total_s)
        return [
            (
                chunk,
                self._after(item, plan.rule),
                self._report(item, 1e3 * total_s),
            )
            for item, chunk in zip(samples, chunks, strict=True)
        ]

    def _begun(
        self, observation: Observation, state: PolicyState, plan: Plan, watch: Stopwatch, started: float
    ) -> _Sample:
        observation = observation.checked(self._info)
        if not isinstance(state, PolicyState):
            raise ConfigError(f"state is a {type(state).__name__}; pass initial_state() or what the last step returned")
        text = self._text(observation.instruction)
        rule = plan.rule
        if isinstance(rule, ThresholdRule):
            rule = rule.at_pace(state.surplus_gmac)
        if plan.budget.peak_llm_gmac is not None:
            tokens = text.embedding.shape[1]
            costs = [self._costs.llm_gmac(index, tokens) for index in range(len(self._info.exit_layers))]
            rule = rule.limited(fitting_exits("peak_llm_gmac", plan.budget.peak_llm_gmac, costs))
        if plan.budget.latency_ms is not None:
            due_s = started + plan.budget.latency_ms / 1e3
            rule = DeadlineRule(rule, due_s, self._times.estimate(), self._now)
        robot = torch.from_numpy(observation.proprioception)[None, None].to(self._device)
        images = stack_views(observation.rgb_static, observation.rgb_gripper, self._model.config.preprocess)
        walk = ExitWalk(watch.timed_head(self._model.head), robot, state.head, rule, state.step)
        return _Sample(state, text, rule, walk, images, text.embedding)

    def _encode(self, samples: Sequence[_Sample]) -> None:
        """Gives the samples their visual latents; views that have not changed keep theirs."""
        fresh = [views_to_encode(item.images, item.state.views, self.view_reuse) for item in samples]
        inputs = [(item.images[views][None],) for item, views in zip(samples, fresh, strict=True) if views]
        made = iter(self.batches.run("encode", self._encoded, inputs))
        for item, views in zip(samples, fresh, strict=True):
            latents = next(made)[0][0] if views else None
            item.views = with_encoded(item.images, item.state.views, views, latents)

    def _encoded(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """(samples, views, 3, height, width) uint8 -> latents (samples, views, latents, vision dim)."""
        latents = self._model.segments.encode(images.flatten(0, 1).to(self._device))
        return (latents.unflatten(0, images.shape[:2]),)

    def _chunk(self, walk: ExitWalk) -> ActionChunk:
        poses, gripper_logits, _ = walk.candidates[-1].output
        rows = torch.cat([poses.view(-1, POSE_SIZE), gripper_logits.view(-1, 1)], dim=1).float().cpu().numpy()
        if self._model.config.official:
            rows = rows.astype(np.float16)
        return ActionChunk(np.stack([Action.clipped(row).values for row in rows]), self._info.rate_hz)

    def _after(self, item: _Sample, rule: ExitRule) -> PolicyState:
        surplus, taken = item.state.surplus_gmac, item.walk.candidates
        if isinstance(rule, ThresholdRule):
            # At the reference length: a long instruction is not made up for by less depth.
            surplus = rule.surplus_after(surplus, self._costs.llm_gmac(len(taken) - 2))
        return PolicyState(taken[-1].output[2], item.state.step + 1, item.views, surplus)

    def _now(self) -> float:
        """The clock, when the device has done what it was told to do."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()

    def _report(self, item: _Sample, latency_ms: float) -> ExitReport:
        assert item.views is not None
        exit_index = len(item.walk.candidates) - 2
        tokens = item.text.embedding.shape[1]
        last = len(self._model.config.language.exit_layers) - 1
        head_runs = sum(candidate.evaluated for candidate in item.walk.candidates)
        return ExitReport(
            exit_index=exit_index,
            exit_layer=self._info.exit_layers[exit_index],
            distances=tuple(item.walk.distances),
            thresholds=item.rule.thresholds,
            llm_gmac=self._costs.llm_gmac(exit_index, tokens),
            total_gmac=self._costs.total_gmac(exit_index, tokens, head_runs, sum(item.views.encoded)),
            full_llm_gmac=self._costs.llm_gmac(last, tokens),
            full_total_gmac=self._costs.total_gmac(last, tokens),
            latency_ms=latency_ms,
            encoded_views=item.views.encoded,
        )

    def _text(self, instruction: str) -> Text:
        """The embedded instruction; the last few are remembered because they stay the same for many steps."""
        text = self.texts.get(instruction)
        if text is None:
            ids, mask = self._tokenizer.encode_batch([instruction])
            text = self._model.text(ids.to(self._device), mask.to(self._device))
            self.texts[instruction] = text
            if len(self.texts) > REMEMBERED_INSTRUCTIONS:
                self.texts.popitem(last=False)
        return text

    @property
    def _device(self) -> torch.device:
        return self._model.embedding.weight.device

    def estimate(self, quantile: float = QUANTILE) -> SegmentEstimate:
        """How long each segment of a step takes here, in this share of the last steps; the first call runs some."""
        if not self._warm:
            exits = len(self._info.exit_layers)
            # A distance is never negative, so this checks each exit without taking it.
            everything = Plan(Budget(), ThresholdRule((-1.0,) * (exits - 1) + (ALWAYS,)))
            observation, state = example_observation(self._info), initial_state(self._model)
            for index in range(WARM_UP_STEPS + MEASURED_STEPS):
                if index == WARM_UP_STEPS:
                    self._times = SegmentTimes(exits)
                self.run([observation], [state], everything)
            self._warm = True
        return self._times.estimate(quantile)


def initial_state(model: DeerModel) -> PolicyState:
    """The state before the first step of a subtask."""
    with torch.inference_mode():
        return PolicyState(model.head.initial_state(1))


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
