"""Thresholds that are solved for a little more, so that episodes at their pace give the average asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deer_policies.deer.budget import CostModel
from deer_policies.deer.exits import ALWAYS, Pace, ThresholdRule
from deer_policies.deer.pacing import corrections, paced_mean
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.thresholds import Calibration, mean_cost, rule_for_average

COSTS = CostModel(deer_nano())
FULL = COSTS.llm_gmac(3)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Forty easy episodes of 30 steps, and two in which the robot is stuck for 360."""
    generator = torch.Generator().manual_seed(0)
    easy, stuck = torch.rand(4, 1200, generator=generator), 1.0 + torch.rand(4, 720, generator=generator)
    episodes = torch.cat([torch.arange(40).repeat_interleave(30), torch.arange(40, 42).repeat_interleave(360)])
    return Calibration(torch.cat([easy, stuck], dim=1), episodes=episodes)


def walked(calibration: Calibration, rule: ThresholdRule) -> float:
    """The mean cost, step by step."""
    assert calibration.episodes is not None
    spent, surplus, before = 0.0, 0.0, -1
    for column, episode in enumerate(calibration.episodes.tolist()):
        surplus = surplus if episode == before else 0.0
        before, thresholds = episode, rule.at_pace(surplus).thresholds
        taken = next(k for k in range(4) if calibration.values[k, column] <= thresholds[k] or k == 3)
        spent += COSTS.llm_gmac(taken)
        surplus = rule.surplus_after(surplus, COSTS.llm_gmac(taken))
    return spent / calibration.values.shape[1]


def test_the_mean_is_that_of_a_walk_through_every_episode(calibration):
    rule, _ = rule_for_average(calibration, COSTS, 0.6 * FULL, 4)
    assert rule.pace is not None
    assert paced_mean(calibration, COSTS, rule.thresholds, rule.pace) == pytest.approx(walked(calibration, rule))
    nothing = ThresholdRule((0.5, 0.5, 0.5, ALWAYS), pace=Pace(FULL, 1.0))
    assert nothing.pace is not None
    assert paced_mean(calibration, COSTS, nothing.thresholds, nothing.pace) == pytest.approx(
        mean_cost(calibration.values, nothing.thresholds, calibration.costs(COSTS, 4))
    )


def test_corrected_thresholds_give_the_average_at_their_pace(calibration):
    paced = replace(calibration, paced=corrections(calibration, COSTS))
    for share in (0.4, 0.6, 0.8):
        before, _ = rule_for_average(calibration, COSTS, share * FULL, 4)
        rule, expected = rule_for_average(paced, COSTS, share * FULL, 4)
        assert walked(calibration, rule) == pytest.approx(share * FULL, rel=0.03)
        assert walked(calibration, before) < 0.95 * share * FULL
        assert expected == pytest.approx(share * FULL)


def test_corrections_span_the_range_and_end_at_its_ends(calibration):
    asked, solved = zip(*corrections(calibration, COSTS), strict=True)
    assert asked[0] == pytest.approx(COSTS.llm_gmac(0))
    assert asked[-1] == solved[-1] == pytest.approx(FULL)
    assert list(asked) == sorted(asked)
    assert all(more >= average for average, more in zip(asked, solved, strict=True))


def test_outside_the_range_and_with_fewer_exits_nothing_is_corrected(calibration):
    paced = replace(calibration, paced=((1.0, 1.0), (2.0, 2.5), (3.0, 3.0)))
    assert [paced.solved_for(average, 4) for average in (0.5, 1.5, 2.0, 9.0)] == [0.5, 1.75, 2.5, 9.0]
    assert paced.solved_for(1.5, 3) == 1.5
