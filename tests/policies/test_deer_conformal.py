"""The conformal rule: its p-value, its sequence of tests, and whether the promise holds on fresh data."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from deer_policies.deer.conformal import (
    Promise,
    cautious_thresholds,
    certified,
    conformal_rule,
    designed_settings,
    episode_losses,
    p_value,
)
from deer_policies.deer.exits import ALWAYS, NEVER
from deer_policies.deer.thresholds import Calibration
from deer_policies.errors import ConfigError

PROMISE = Promise(epsilon=0.05, alpha=0.1, delta=0.1)
EPISODES, STEPS = 200, 15
REPEATS = 200


def synthetic(episodes: int, generator: torch.Generator) -> Calibration:
    """Steps of an episode share how hard it is; the larger the value, the likelier exiting breaks the promise."""
    hardness = torch.rand(episodes, 1, generator=generator)
    values = torch.rand(episodes, STEPS, generator=generator)
    breaks = torch.rand(episodes, STEPS, generator=generator) < (0.1 + 0.8 * hardness) * values
    errors = torch.where(breaks, 2.0, 0.5) * PROMISE.epsilon
    rows = torch.stack([values.flatten(), torch.zeros(episodes * STEPS)])
    kept = torch.stack([errors.flatten(), torch.zeros(episodes * STEPS)])
    numbers = torch.arange(episodes).repeat_interleave(STEPS)
    return Calibration(rows, "action", errors=kept, episodes=numbers)


def true_risk(threshold: float) -> float:
    """Share of fresh steps that stop at or below a threshold and break the promise."""
    return 0.5 * min(max(threshold, 0.0), 1.0) ** 2 / 2.0


def share_of_broken_promises(choose) -> float:
    """How often thresholds that `choose` finds on a fresh calibration break more than alpha of the steps."""
    broken = 0
    for repeat in range(REPEATS):
        calibration = synthetic(EPISODES, torch.Generator().manual_seed(repeat))
        broken += true_risk(choose(calibration)[0]) > PROMISE.alpha
    return broken / REPEATS


def naive(calibration: Calibration) -> tuple[float, ...]:
    """The boldest thresholds whose share of broken steps is at most alpha where it was counted."""
    settings, losses = designed_settings(calibration, PROMISE)
    return [thresholds for thresholds, row in zip(settings, losses, strict=True) if row.mean() <= PROMISE.alpha][-1]


def test_the_promise_holds_on_fresh_data():
    error = math.sqrt(PROMISE.delta * (1 - PROMISE.delta) / REPEATS)
    found: list[float] = []

    def choose(calibration: Calibration) -> tuple[float, ...]:
        thresholds = conformal_rule(calibration, PROMISE).thresholds
        found.append(thresholds[0])
        return thresholds

    assert share_of_broken_promises(choose) <= PROMISE.delta + 3 * error
    # All layers at every step would keep it too; it is worth something only if exits are taken.
    assert sum(true_risk(threshold) for threshold in found) / REPEATS > 0.2 * PROMISE.alpha


@pytest.mark.slow
def test_without_the_test_the_promise_is_broken():
    assert share_of_broken_promises(naive) > 2 * PROMISE.delta


def test_counting_steps_instead_of_episodes_breaks_the_promise():
    """Steps of one episode that all fail together are one failure; as independent ones they would certify anything."""
    promise = Promise(epsilon=0.05, alpha=0.1, delta=0.1)
    generator = torch.Generator().manual_seed(0)
    broken = {"episodes": 0, "steps": 0}
    for _ in range(300):
        episodes = (torch.rand(30, generator=generator) < 0.11).double()
        broken["episodes"] += p_value(episodes, promise.alpha) <= promise.delta
        broken["steps"] += p_value(episodes.repeat_interleave(20), promise.alpha) <= promise.delta
    assert broken["episodes"] / 300 <= promise.delta
    assert broken["steps"] / 300 > 2 * promise.delta


@pytest.mark.parametrize("failures", [0, 1, 5])
def test_p_value_is_the_smaller_of_two_bounds(failures):
    count, alpha = 60, 0.1
    losses = torch.zeros(count)
    losses[:failures] = 1.0
    bentkus = math.e * stats.binom.cdf(failures, count, alpha)
    mean = failures / count
    divergence = stats.entropy([mean, 1 - mean], [alpha, 1 - alpha])
    assert p_value(losses, alpha) == pytest.approx(min(bentkus, math.exp(-count * divergence)))


def test_p_value_says_nothing_for_large_losses():
    assert p_value(torch.full((50,), 0.3), 0.1) == 1.0
    assert p_value(torch.ones(50), 0.1) == 1.0


def test_tests_stop_at_the_first_failure():
    good, bad = torch.zeros(100), torch.ones(100)
    assert certified(torch.stack([good, good, bad, good]), PROMISE) == 2
    assert certified(torch.stack([bad, good]), PROMISE) == 0
    assert certified(torch.stack([good] * 3), PROMISE) == 3


def test_cautious_thresholds():
    values = torch.tensor([[1.0, 2.0, 3.0, 3.0, 5.0], [9.0, 9.0, 9.0, 9.0, 1.0], [0.0] * 5])
    broken = torch.tensor([[0, 0, 0, 1, 0], [1, 1, 1, 1, 0], [0] * 5], dtype=torch.bool)
    assert cautious_thresholds(values, broken, 0.0) == (2.0, 1.0, ALWAYS)
    assert cautious_thresholds(values, broken, 0.25) == (5.0, NEVER, ALWAYS)
    assert cautious_thresholds(values, ~broken, 0.0) == (NEVER, NEVER, ALWAYS)


def test_losses_are_shares_of_each_episode():
    broken = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    episodes, taken = torch.tensor([7, 7, 7, 3]), torch.tensor([0, 0, 1, 0])
    assert episode_losses(broken, episodes, taken).tolist() == pytest.approx([1.0, 1 / 3])


def test_too_few_episodes_leave_all_layers_and_tell_how_many_are_needed(caplog):
    rule = conformal_rule(synthetic(10, torch.Generator().manual_seed(0)), PROMISE)
    assert rule.thresholds == (NEVER, ALWAYS)
    assert f"at least {2 * PROMISE.episodes_needed} episodes" in caplog.text
    assert p_value(torch.zeros(PROMISE.episodes_needed), PROMISE.alpha) <= PROMISE.delta
    assert p_value(torch.zeros(PROMISE.episodes_needed - 1), PROMISE.alpha) > PROMISE.delta


def test_a_gripper_that_differs_breaks_the_promise():
    values = torch.zeros(2, 400)
    errors = torch.stack([torch.full((400,), float("inf")), torch.zeros(400)])
    calibration = Calibration(values, "action", errors=errors, episodes=torch.arange(400) // 4)
    assert conformal_rule(calibration, PROMISE).thresholds == (NEVER, ALWAYS)


def test_a_calibration_without_errors_is_refused():
    with pytest.raises(ConfigError, match="deer calibrate"):
        conformal_rule(Calibration(torch.zeros(2, 10)), PROMISE)


@pytest.mark.parametrize(
    ("values", "words"), [((0.0, 0.1, 0.1), "epsilon"), ((0.1, 1.0, 0.1), "alpha"), ((0.1, 0.1, 0.0), "delta")]
)
def test_bad_promises(values, words):
    with pytest.raises(ConfigError, match=words):
        Promise(*values)
