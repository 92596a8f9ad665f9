"""Exit rules, criteria, and thresholds that are solved from recorded values."""

from __future__ import annotations

import pytest
import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import changed
from deer_policies.deer.criteria import Candidate, FeatureSimilarity, TimeStep, checked_criterion
from deer_policies.deer.exits import ALWAYS, NEVER, ThresholdRule, run_to_exit
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.thresholds import (
    Calibration,
    achieved_shares,
    action_values,
    exit_shares,
    solve_thresholds,
    thresholds_for_average,
)
from deer_policies.errors import BudgetError, ConfigError

COSTS = (2.0, 4.0, 6.0, 8.0)


def candidates(*poses: float) -> list[Candidate]:
    """Candidates whose pose has one value in all dimensions, and whose feature is (1, pose)."""
    state = HeadState(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    return [
        Candidate(
            torch.tensor([[1.0, pose]]),
            lambda feature: (feature[:, 1:].expand(1, 6), torch.zeros(1), state),
        )
        for pose in poses
    ]


@pytest.fixture
def values() -> torch.Tensor:
    """Distances that fall with depth, as real ones do."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 997, generator=generator) * torch.tensor([0.4, 0.3, 0.2, 0.1])[:, None]


def test_distance_is_a_root_mean_square_and_equality_stops():
    found = candidates(0.0, 0.25)
    at, below = ThresholdRule((0.25, ALWAYS)), ThresholdRule((0.2499, ALWAYS))
    assert at.decide(found, 0).distance == 0.25
    assert at.decide(found, 0).stop
    assert not below.decide(found, 0).stop


def test_a_check_compares_with_the_exit_before():
    rule = ThresholdRule((0.1, 0.1, ALWAYS))
    found = candidates(0.0, 0.5, 0.55)
    assert not rule.decide(found[:2], 0).stop
    assert rule.decide(found, 0).stop


def test_an_exit_that_is_never_taken_costs_no_run_of_the_head():
    found = candidates(0.0, 0.5, 0.55)
    rule = ThresholdRule.fixed(2)
    assert [rule.decide(found[:count], 0).stop for count in (2, 3)] == [False, False]
    assert not any(candidate.evaluated for candidate in found)
    last = rule.decide(candidates(0.0, 0.5, 0.55, 0.56), 0)
    assert last.stop
    assert last.distance is None


def test_the_last_exit_in_use_always_stops():
    rule = ThresholdRule((0.0, 0.0, 0.0, 0.0)).limited(2)
    assert rule.thresholds == (0.0, ALWAYS)
    assert not rule.decide(candidates(0.0, 0.5), 0).stop
    assert rule.decide(candidates(0.0, 0.5, 0.9), 0).stop
    assert ThresholdRule((0.1, ALWAYS)).limited(5).thresholds == (0.1, ALWAYS)


def test_other_criteria():
    found = candidates(0.0, 1.0)
    assert FeatureSimilarity().distance(*found, 0).item() == pytest.approx(1 - 2**-0.5)
    assert not any(candidate.evaluated for candidate in found)
    rule = ThresholdRule((10.0, 100.0, ALWAYS), TimeStep())
    taken = [
        1 + [rule.decide(candidates(*range(count)), step).stop for count in (2, 3, 4)].index(True)
        for step in (5, 50, 500)
    ]
    assert taken == [1, 2, 3]
    with pytest.raises(ConfigError, match="action, feature, time, predicted"):
        checked_criterion("taste")


@pytest.mark.parametrize("thresholds", [(), (float("nan"), ALWAYS)])
def test_bad_thresholds(thresholds):
    with pytest.raises(ConfigError, match="exit thresholds"):
        ThresholdRule(thresholds)
    with pytest.raises(ConfigError, match="shallowest exit is 0"):
        ThresholdRule.fixed(-1)


def test_solved_thresholds_give_the_wanted_shares(values):
    shares = [0.4, 0.3, 0.2, 0.1]
    thresholds = solve_thresholds(values, shares)
    assert achieved_shares(values, thresholds) == pytest.approx(shares, abs=4 / values.shape[1])
    assert thresholds[-1] == ALWAYS


def test_ties_stop_together():
    values = torch.tensor([[1.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    thresholds = solve_thresholds(values, [0.5, 0.5])
    assert achieved_shares(values, thresholds) == [0.75, 0.25]


@pytest.mark.parametrize("average", [2.0, 2.5, 4.0, 5.0, 7.0, 7.9])
def test_thresholds_meet_an_average_on_the_solving_data(values, average):
    thresholds, expected = thresholds_for_average(values, COSTS, average)
    shares = achieved_shares(values, thresholds)
    cost = sum(share * price for share, price in zip(shares, COSTS, strict=True))
    assert cost == pytest.approx(expected)
    assert average - 0.03 <= cost <= average + 1e-6


def test_more_than_enough_budget_runs_all_layers(values):
    thresholds, cost = thresholds_for_average(values, COSTS, 9.0)
    assert thresholds == (NEVER, NEVER, NEVER, ALWAYS)
    assert cost == COSTS[-1]


def test_an_average_below_the_cheapest_exit_is_refused(values):
    with pytest.raises(BudgetError, match="cheapest exit's 2;"):
        thresholds_for_average(values, COSTS, 1.9)


def test_fewer_exits_in_use(values):
    thresholds, cost = thresholds_for_average(values, COSTS[:2], 3.0)
    assert len(thresholds) == 2
    assert cost == pytest.approx(3.0, abs=0.01)


def test_blind_exits_are_never_taken(values):
    assert exit_shares(0.5, 4, blind=1)[0] == 0.0
    thresholds, _ = thresholds_for_average(values, COSTS, 5.0, blind=1)
    assert thresholds[0] == NEVER
    with pytest.raises(BudgetError, match="cheapest exit's 4;"):
        thresholds_for_average(values, COSTS, 3.0, blind=1)


def test_families_of_shares():
    assert exit_shares(1.0, 4) == pytest.approx([0.25] * 4)
    assert exit_shares(0.8, 3) == pytest.approx([0.8 / 1.952, 0.64 / 1.952, 0.512 / 1.952])
    gauss = exit_shares(2.0, 4, "gauss")
    assert gauss.index(max(gauss)) == 2
    with pytest.raises(ConfigError, match="exp, gauss or gamma"):
        exit_shares(1.0, 4, "beta")


@pytest.mark.parametrize("bad", [torch.zeros(4), torch.zeros(4, 0), torch.full((4, 3), float("nan"))])
def test_calibration_values_are_checked(bad):
    with pytest.raises(ConfigError, match="criterion values"):
        Calibration(bad)


class CountedLayers:
    """Counts how often each language layer of a model runs."""

    def __init__(self, model: DeerModel) -> None:
        self.calls = [0] * len(model.layers)
        for index, layer in enumerate(model.layers):
            layer.register_forward_hook(lambda *_, index=index: self._count(index))

    def _count(self, index: int) -> None:
        self.calls[index] += 1


@pytest.mark.parametrize(("exit_index", "layers"), [(0, 2), (1, 4), (3, 8)])
def test_layers_beyond_the_exit_do_not_run(exit_index, layers):
    model = DeerModel(deer_nano()).eval()
    counted = CountedLayers(model)
    with torch.inference_mode():
        text = model.text(torch.full((1, 6), 7), torch.ones(1, 6, dtype=torch.bool))
        media = torch.randn(1, 16, model.config.vision.dim)
        state = model.head.initial_state(1)
        found, _ = run_to_exit(model, text, media, torch.zeros(1, 1, 15), state, ThresholdRule.fixed(exit_index), 0)
    assert len(found) == exit_index + 2
    assert counted.calls == [1] * layers + [0] * (8 - layers)


def test_values_measured_on_windows_are_what_a_policy_sees_step_by_step():
    """The state after each step is that of the drawn exit, so the same exits in use give the same distances."""
    torch.manual_seed(3)
    model = DeerModel(changed(deer_nano(), {"language": {"layers": 4}})).eval()
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (1, 5, 2, 3, 96, 96), dtype=torch.uint8, generator=generator)
    ids, mask = torch.full((1, 6), 7), torch.ones(1, 6, dtype=torch.bool)
    robot = torch.randn(1, 5, 15, generator=generator)
    drawn = torch.tensor([[0, 1, 1, 0, 1]])
    with torch.inference_mode():
        values, after = action_values(model.head, model.features(images, ids, mask), robot, drawn)
        state = model.head.initial_state(1)
        for step, exit_index in enumerate(drawn[0].tolist()):
            thresholds = (-1.0, ALWAYS) if exit_index else (ALWAYS, ALWAYS)
            media = model.media(images[:, step])
            found, distances = run_to_exit(
                model, model.text(ids, mask), media, robot[:, step : step + 1], state, ThresholdRule(thresholds), step
            )
            state = found[-1].output[2]
            assert distances == pytest.approx(values[: exit_index + 1, 0, step].tolist(), abs=1e-6)
    torch.testing.assert_close(state.hidden, after.hidden, rtol=0, atol=1e-6)
