"""Tests of what keeps the mean cost of a long episode near its average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.exits import ALWAYS, HORIZON_STEPS, NEVER, Pace
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.interfaces import Budget

COSTS = (2.0, 4.0, 6.0, 8.0)
THRESHOLDS = (0.1, NEVER, 0.3, ALWAYS)


def test_thresholds_grow_with_what_was_spent_too_much():
    pace = Pace.of(THRESHOLDS, 5.0, COSTS)
    assert pace.slack_gmac == HORIZON_STEPS * 3.0
    assert pace.eased(THRESHOLDS, 0.0) is pace.eased(THRESHOLDS, -50.0) is THRESHOLDS
    assert pace.eased(THRESHOLDS, pace.slack_gmac / 2) == (0.2, NEVER, 0.6, 2 * ALWAYS)
    assert pace.eased(THRESHOLDS, pace.slack_gmac) == (ALWAYS,) * 4


def test_an_exit_that_is_never_taken_stays_so():
    thresholds = (NEVER, 0.2, 0.3, ALWAYS)
    pace = Pace.of(thresholds, 5.0, COSTS)
    assert pace.slack_gmac == HORIZON_STEPS * 1.0
    assert pace.eased(thresholds, 1e9) == (NEVER, ALWAYS, ALWAYS, ALWAYS)


def test_at_the_cheapest_average_there_is_no_slack():
    assert Pace.of((ALWAYS,) * 4, 2.0, COSTS).eased((NEVER, 0.1, 0.1, ALWAYS), 1e-9) == (NEVER, ALWAYS, ALWAYS, ALWAYS)


@pytest.fixture(scope="module")
def policy() -> DeerPolicy:
    """Its calibration is of steps that are much easier than those that it meets: thresholds near nothing."""
    torch.manual_seed(0)
    values = 1e-9 * torch.rand(4, 400, generator=torch.Generator().manual_seed(0))
    tokenizer = Tokenizer.train(["open the drawer"], 300, max_tokens=32)
    return DeerPolicy(DeerModel(deer_nano(), auxiliary_heads=False), tokenizer, Calibration(values))


def exits_of_an_episode(policy: DeerPolicy, steps: int) -> list[int]:
    state, observation, taken = policy.initial_state(), example_observation(policy.info), []
    for _ in range(steps):
        _, state, report = policy.step(observation, state)
        taken.append(report.exit_index)
    return taken


def test_a_hard_episode_ends_near_the_average(policy):
    cost = np.array([policy.costs.llm_gmac(index) for index in range(4)])
    average = 0.5 * cost[-1]
    policy.set_budget(Budget(average_llm_gmac=average))
    taken = exits_of_an_episode(policy, 360)
    assert taken[:5] == [3] * 5
    slack = HORIZON_STEPS * (average - cost[0]) + cost[-1] - average
    means = np.cumsum(cost[taken]) / np.arange(1, 361)
    assert (means <= average + slack / np.arange(1, 361)).all()
    assert means[-1] < 1.15 * average
    policy.set_exit_rule(replace(policy.exit_rule, pace=None))
    assert exits_of_an_episode(policy, 100) == [3] * 100


def test_a_tighter_budget_does_not_ask_back_what_was_spent_under_the_wider_one(policy):
    full = policy.costs.llm_gmac(3)
    policy.set_budget(Budget(average_llm_gmac=full))
    state, observation = policy.initial_state(), example_observation(policy.info)
    for _ in range(200):
        _, state, _ = policy.step(observation, state)
    policy.set_budget(Budget(average_llm_gmac=0.5 * full))
    assert policy.step(observation, state)[2].exit_index == 3
