"""The deadline rule: as deep as the time allows, on a clock that only the segments move."""

from __future__ import annotations

import pytest
import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.criteria import Candidate
from deer_policies.deer.deadline import WINDOW, DeadlineRule, SegmentEstimate, SegmentTimes, Stopwatch, exits_in_time
from deer_policies.deer.exits import ALWAYS, NEVER, ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import BudgetError
from deer_policies.interfaces import Budget, ExitReport

ESTIMATE = SegmentEstimate(encode_s=10.0, layers_s=(4.0, 4.0, 4.0), head_s=1.0, rest_s=0.5)


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def candidates(count: int, evaluated: bool) -> list[Candidate]:
    state = HeadState(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    made = [Candidate(torch.ones(1, 2), lambda _: (torch.zeros(1, 6), torch.zeros(1), state)) for _ in range(count)]
    for candidate in made:
        assert not evaluated or candidate.output
    return made


class TestRule:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    def stops(self, clock: FakeClock, inner: ThresholdRule, now_s: float, evaluated: bool = True) -> bool:
        clock.now_s = now_s
        return DeadlineRule(inner, 30.0, ESTIMATE, clock).decide(candidates(2, evaluated), 0).stop

    def test_it_goes_on_while_the_next_exits_action_would_be_in_time(self, clock):
        inner = ThresholdRule.fixed(2)
        assert not self.stops(clock, inner, 24.5)
        assert self.stops(clock, inner, 24.6)

    def test_a_comparison_needs_this_exits_action_too(self, clock):
        inner = ThresholdRule((NEVER, 0.1, ALWAYS))
        assert self.stops(clock, inner, 24.5, evaluated=False)
        assert not self.stops(clock, inner, 23.5, evaluated=False)

    def test_it_stops_where_the_rule_inside_stops(self, clock):
        inner = ThresholdRule((ALWAYS, ALWAYS, ALWAYS))
        assert self.stops(clock, inner, 0.0)
        rule = DeadlineRule(ThresholdRule.fixed(2), 30.0, ESTIMATE, clock)
        assert rule.thresholds == (NEVER, NEVER, ALWAYS)
        assert rule.limited(1).decide(candidates(2, False), 0).stop


class TestTimes:
    def measured(self, times: SegmentTimes, *layers_s: float, encode_s: float = 1.0, head_s: float = 0.1) -> None:
        watch = Stopwatch(FakeClock())
        watch.encode_s, watch.layers_s, watch.heads_s = encode_s, list(layers_s), [head_s]
        times.add(watch, encode_s + sum(layers_s) + head_s + 0.25)

    def test_an_upper_quantile_of_the_last_measurements(self):
        times = SegmentTimes(1)
        for number in range(200):
            self.measured(times, 1.0 + number % 50)
        assert times.estimate().layers_s == (48.0,)
        assert times.estimate().rest_s == pytest.approx(0.25)
        for _ in range(WINDOW):
            self.measured(times, 0.5)
        assert times.estimate().layers_s == (0.5,)

    def test_what_was_not_run_for_long_is_judged_by_its_best(self):
        times = SegmentTimes(2)
        for seconds in (2.0, 9.0, 3.0):
            self.measured(times, 1.0, seconds)
        for _ in range(WINDOW - 1):
            self.measured(times, 1.0)
        assert times.estimate().layers_s == (1.0, 9.0)
        self.measured(times, 1.0)
        assert times.estimate().layers_s == (1.0, 2.0)


@pytest.mark.parametrize(("latency_s", "exits"), [(10.0, 1), (15.5, 1), (19.4, 1), (19.6, 2), (27.6, 3), (99.0, 3)])
def test_exits_worth_loading_follow_from_the_first_exits_layers(latency_s, exits):
    first = SegmentEstimate(encode_s=10.0, layers_s=(4.0,), head_s=1.0, rest_s=0.5)
    assert exits_in_time(first, (2.0, 4.0, 8.0), latency_s) == exits


@pytest.fixture
def machine() -> tuple[DeerPolicy, FakeClock, dict[str, float]]:
    """A policy, its clock, and how long each part of the model takes on it, in ms; a part can be made slower."""
    torch.manual_seed(0)
    clock, takes_ms = FakeClock(), {"vision": 10.0, "layer": 1.0, "head": 0.5}
    model = DeerModel(deer_nano(), auxiliary_heads=False)

    def advance(part: str) -> None:
        clock.now_s += takes_ms[part] / 1e3

    model.vision.register_forward_hook(lambda *_: advance("vision"))
    model.head.register_forward_hook(lambda *_: advance("head"))
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: advance("layer"))
    values = torch.rand(4, 400, generator=torch.Generator().manual_seed(0))
    tokenizer = Tokenizer.train(["open the drawer"], 300, max_tokens=32)
    return DeerPolicy(model, tokenizer, Calibration(values), clock=clock), clock, takes_ms


def step(policy: DeerPolicy) -> ExitReport:
    return policy.step(example_observation(policy.info), policy.initial_state())[2]


@pytest.mark.parametrize(
    ("latency_ms", "exit_index", "took_ms"), [(12.6, 0, 12.5), (14.6, 1, 14.5), (18.4, 2, 16.5), (18.6, 3, 18.5)]
)
def test_as_deep_as_the_latency_budget_allows(machine, latency_ms, exit_index, took_ms):
    policy, _, _ = machine
    policy.set_budget(Budget(latency_ms=latency_ms))
    report = step(policy)
    assert report.exit_index == exit_index
    assert report.latency_ms == pytest.approx(took_ms)


def test_time_that_one_step_has_lost_is_missing_at_its_end(machine):
    policy, _, takes_ms = machine
    policy.set_budget(Budget(latency_ms=18.6))
    assert step(policy).exit_index == 3
    takes_ms["vision"] = 13.0
    late = step(policy)
    assert (late.exit_index, late.latency_ms) == (1, pytest.approx(17.5))
    takes_ms["vision"] = 10.0
    assert step(policy).exit_index == 3


def test_slower_layers_are_noticed_from_the_next_step_on(machine):
    policy, _, takes_ms = machine
    policy.set_budget(Budget(latency_ms=18.6))
    takes_ms["layer"] = 1.5
    assert step(policy).latency_ms > 18.6
    for _ in range(5):
        assert step(policy).latency_ms <= 18.6


def test_the_first_exit_must_be_in_time(machine):
    policy, _, _ = machine
    with pytest.raises(BudgetError, match=r"latency_ms = 12.4 can't be met: the first exit needs 12.5; allow at least"):
        policy.set_budget(Budget(latency_ms=12.4))
    with pytest.raises(BudgetError, match=r"the first exit needs 13"):
        policy.set_budget(Budget(latency_ms=12.6, average_llm_gmac=1.5 * policy.costs.llm_gmac(0)))
    assert policy.budget == Budget()


def test_an_average_and_a_deadline_hold_together(machine):
    policy, _, _ = machine
    average = 0.8 * policy.costs.llm_gmac(3)
    policy.set_budget(Budget(average_llm_gmac=average))
    thresholds = policy.exit_rule.thresholds
    policy.set_budget(Budget(average_llm_gmac=average, latency_ms=16.1))
    assert policy.exit_rule.thresholds == thresholds
    reports = [step(policy) for _ in range(3)]
    assert all(report.latency_ms <= 16.1 for report in reports)
    policy.set_budget(Budget(latency_ms=1e3))
    assert step(policy).exit_index == 3
