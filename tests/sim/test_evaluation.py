"""Rollouts, trials and their statistics."""

import json

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ActionChunk, Budget, ExitReport, PolicyInfo
from deer_sim.evaluation import Trial, evaluate, read_results, run_trial, summarise, trials
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.rollout import rollout
from deer_sim.starts import sample_start
from deer_sim.statistics import paired_difference, wilson_interval


class ScriptedPolicy:
    """Acts as `choose(step number)` says and reports exit 1 of 2 at even steps, exit 0 at odd ones."""

    info = PolicyInfo("scripted", (0, 1))
    budget = Budget()

    def __init__(self, choose=lambda step: np.zeros(7)):
        self._choose = choose

    def set_budget(self, budget):
        raise NotImplementedError

    def initial_state(self):
        return 0

    def step(self, observation, state):
        values = np.array(self._choose(state), np.float32)
        values[6] = -1.0
        index = 1 - state % 2
        cost = 1.0 + index
        report = ExitReport(index, index, (), (), cost, cost + 1.0, 2.0, 3.0, 0.5)
        return ActionChunk(values[None]), state + 1, report


def idle_policy():
    return ScriptedPolicy()


@pytest.fixture(scope="module")
def table():
    environment = PlayTable("D")
    yield environment
    environment.close()


def led_start(table, seed=3):
    start = sample_start("turn_on_led", "D", np.random.default_rng(seed))
    return table.reset(seed, start.robot_obs, start.scene_obs)


def test_a_rollout_ends_with_success_and_adds_up_the_cost(table):
    first = led_start(table)
    expert = Expert("D")
    expert.reset(first)
    expert.begin("turn_on_led", first)
    now = first
    actions = []

    class Replay(ScriptedPolicy):
        def step(self, observation, state):
            action = expert.action(seen[-1])
            expert.executed(action)
            self._choose = lambda _: action
            actions.append(action)
            return super().step(observation, state)

    seen = [now]
    result = rollout(table, Replay(), "turn_on_led", "lamp", first, 60, lambda step, report: seen.append(step))
    assert result.success
    assert result.steps == len(actions) < 60
    assert result.last.state.led
    assert sum(result.exit_counts.values()) == result.steps
    deep = result.exit_counts[1]
    assert result.mean_llm_gmac == pytest.approx((deep * 2.0 + (result.steps - deep)) / result.steps)
    assert result.mean_exit_layers == pytest.approx(result.mean_llm_gmac)


def test_a_rollout_gives_up_at_the_limit(table):
    result = rollout(table, idle_policy(), "turn_on_led", "lamp", led_start(table), 4)
    assert not result.success
    assert result.steps == 4


def test_a_trial_is_the_same_each_time(table):
    trial = Trial("D", "open_drawer", 5, 2)
    policy = ScriptedPolicy(lambda step: np.sin(np.arange(7) + step))
    assert run_trial(trial, table, policy, 6) == run_trial(trial, table, policy, 6)


def test_a_trial_that_needs_a_grasped_block_first_is_refused(table):
    with pytest.raises(ConfigError, match="score it within a sequence"):
        run_trial(Trial("D", "stack_block", 1, 0), table, idle_policy(), 2)


def test_unknown_tasks_are_named():
    with pytest.raises(ConfigError, match=r"unknown tasks \['dance'\]"):
        trials("D", ["open_drawer", "dance"], 2, 0)


def test_an_evaluation_goes_on_after_a_kill_without_losing_or_repeating_a_trial(tmp_path):
    path = tmp_path / "results.jsonl"
    plan = trials("D", ["turn_on_led"], 4, 7)
    whole = sorted(evaluate(plan, idle_policy, path, workers=2, max_steps=3), key=lambda outcome: outcome.key)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:40])
    assert len(read_results(path)) == 2
    again = sorted(evaluate(plan, idle_policy, path, workers=1, max_steps=3), key=lambda outcome: outcome.key)
    assert again == whole
    assert len(path.read_text().splitlines()) == 4
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_summary_weighs_steps_and_names_shares(table):
    outcomes = [run_trial(trial, table, idle_policy(), 2) for trial in trials("D", ["turn_on_led"], 3, 1)]
    report = summarise(outcomes)
    assert report["all"]["attempts"] == 3
    assert report["per_task"]["turn_on_led"]["success"] == 0
    assert report["llm_share"] == pytest.approx(0.75)
    assert report["total_share"] == pytest.approx(2.5 / 3.0)


def test_wilson_interval_matches_known_values():
    assert wilson_interval(20, 25) == pytest.approx((0.6087, 0.9114), abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_paired_difference_sees_a_difference_and_none():
    rng = np.random.default_rng(0)
    first = np.array([1, 1, 1, 0] * 25)
    assert paired_difference(first, first, rng) == (0.0, 0.0, 0.0)
    mean, low, high = paired_difference(first, np.zeros(100), rng)
    assert mean == 0.75
    assert 0.6 < low < 0.75 < high < 0.9
    with pytest.raises(ValueError, match="equal, non-empty"):
        paired_difference(first, first[:3], rng)
