"""Rollouts, chains, the processes that run them, and what is left of them after a kill."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_policies.interfaces import ActionChunk, Budget, ExitReport, PolicyInfo
from deer_sim import instructions
from deer_sim.calvin.sequences import task_sequences
from deer_sim.chains import annotated_wording, own_wording, sequence_chains, task_chains
from deer_sim.evaluation import evaluate, local
from deer_sim.expert import Expert
from deer_sim.fleet import Setup, run_chain, run_chains
from deer_sim.playtable.environment import PlayTable
from deer_sim.results import RESULTS, ChainResult, claim, open_store, read_results
from deer_sim.rollout import ExpertActor, PolicyActor, rollout
from deer_sim.starts import sample_start
from deer_sim.tasks import TASKS

BLIND = Setup("playtable:D", expert=True, max_steps=60)


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


class Together(ScriptedPolicy):
    """The same in batches, whose sizes it notes."""

    def __init__(self):
        super().__init__(lambda step: np.sin(np.arange(7) + step))
        self.sizes = []

    def step_batch(self, observations, states):
        self.sizes.append(len(observations))
        return [self.step(observation, state) for observation, state in zip(observations, states, strict=True)]


@pytest.fixture(scope="module")
def table():
    environment = PlayTable("D")
    yield environment
    environment.close()


@pytest.mark.parametrize("task", ["push_into_drawer", "push_red_block_left", "lift_blue_block_table", "unstack_block"])
def test_a_single_task_begins_when_its_blocks_have_come_to_rest(table, task):
    """Its condition asks what they touched then, and a reset leaves them a hair above the table."""
    (chain,) = task_chains("D", [task], 1, 5)
    assert run_chain(chain, table, ExpertActor(Expert("D"))).solved == 1


def led_start(table, seed=3):
    start = sample_start("turn_on_led", "D", np.random.default_rng(seed))
    return table.reset(seed, start.robot_obs, start.scene_obs)


def test_a_rollout_ends_with_success_and_adds_up_the_cost(table):
    first = led_start(table)
    expert = Expert("D")
    expert.reset(first)
    expert.begin("turn_on_led", first)
    actions = []

    class Replay(ScriptedPolicy):
        def step(self, observation, state):
            action = expert.action(seen[-1])
            expert.executed(action)
            self._choose = lambda _: action
            actions.append(action)
            return super().step(observation, state)

    class Seeing(PolicyActor):
        def act(self, now):
            seen.append(now)
            return super().act(now)

    seen = []
    result = rollout(table, Seeing(Replay()), "turn_on_led", "lamp", first, 60)
    assert result.success
    assert result.steps == len(actions) < 60
    assert result.last.state.led
    assert sum(result.exit_counts.values()) == result.steps
    deep = result.exit_counts[1]
    assert result.mean_llm_gmac == pytest.approx((deep * 2.0 + (result.steps - deep)) / result.steps)
    assert result.mean_exit_layers == pytest.approx(result.mean_llm_gmac)


def test_a_rollout_gives_up_at_the_limit(table):
    result = rollout(table, PolicyActor(ScriptedPolicy()), "turn_on_led", "lamp", led_start(table), 4)
    assert not result.success
    assert result.steps == 4


def test_a_chain_goes_on_where_the_subtask_before_has_ended():
    chain = sequence_chains(task_sequences(1), 0, "D", own_wording)[0]
    environment, actor = PlayTable("D", cameras=False), ExpertActor(Expert("D"))
    seen = []
    result = run_chain(chain, environment, actor, 120, lambda number, now, action, report: seen.append((number, now)))
    again = run_chain(chain, environment, actor, 120)
    environment.close()
    assert result == again
    assert result.solved == len(result.subtasks) == 5
    assert [now.step for _, now in seen] == list(range(len(seen)))
    assert sorted({number for number, _ in seen}) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(seen[0][1].scene_obs[:6], chain.scene_obs[:6], atol=1e-3)


def test_a_chain_ends_with_the_first_failure():
    chain = sequence_chains(task_sequences(1), 0, "D", own_wording)[0]
    environment = PlayTable("D", cameras=False)
    result = run_chain(chain, environment, ExpertActor(Expert("D")), 3)
    environment.close()
    assert (result.solved, result.planned, len(result.subtasks)) == (0, 5, 1)
    assert result.subtasks[0].steps == 3


def test_wordings_are_drawn_from_the_group_that_is_asked_for():
    for group in instructions.GROUPS:
        chains = task_chains("D", ["open_drawer"], 4, 0, functools.partial(own_wording, group=group))
        assert {instructions.group_of(chain.subtasks[0].instruction) for chain in chains} == {group}
    chains = task_chains("D", ["open_drawer"], 40, 0, functools.partial(own_wording, group=instructions.EVERY))
    assert {instructions.group_of(chain.subtasks[0].instruction) for chain in chains} == set(instructions.GROUPS)


@pytest.mark.parametrize("scene", "ABC")
def test_another_scene_has_the_same_tasks_with_the_blocks_where_it_has_room(scene):
    (chain,), (original,) = (sequence_chains(task_sequences(1), 0, letter, own_wording) for letter in (scene, "D"))
    assert chain.subtasks == original.subtasks
    assert chain.key == f"{scene}/{original.key}"
    assert chain == sequence_chains(task_sequences(1), 0, scene, own_wording)[0]
    environment = PlayTable(scene, cameras=False)
    result = run_chain(chain, environment, ExpertActor(Expert(scene)), 360)
    environment.close()
    assert result.solved == 5


def test_a_scene_that_does_not_exist_is_refused():
    with pytest.raises(SimulatorError, match="unknown scene 'Z'"):
        sequence_chains(task_sequences(1), 0, "Z", own_wording)


def test_a_task_that_needs_a_grasped_block_first_is_refused():
    with pytest.raises(ConfigError, match="score it within a sequence"):
        task_chains("D", ["stack_block"], 1, 0)


def test_unknown_tasks_are_named():
    with pytest.raises(ConfigError, match=r"unknown tasks \['dance'\]"):
        task_chains("D", ["open_drawer", "dance"], 2, 0)


def test_annotations_are_one_sentence_a_task(tmp_path):
    path = tmp_path / "sentences.yaml"
    path.write_text("open_drawer: [pull it open]\n")
    with pytest.raises(ConfigError, match="has no sentence for rotate_red_block_right"):
        annotated_wording(path)
    path.write_text("".join(f"{task}: [do {task}, never said]\n" for task in TASKS))
    chain = sequence_chains(task_sequences(1), 0, "D", annotated_wording(path))[0]
    assert [subtask.instruction for subtask in chain.subtasks] == [f"do {subtask.task}" for subtask in chain.subtasks]


def by_key(results):
    return sorted(results, key=lambda result: result.key)


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    plan = task_chains("D", ["turn_on_led"], 4, 7)
    setup = Setup("playtable:D", max_steps=3)
    policies = [Together(), Together()]
    one, three = (
        by_key(evaluate(plan, tmp_path / str(workers), local(setup, policy, workers)))
        for workers, policy in zip((1, 3), policies, strict=True)
    )
    assert one == three
    assert [result.key for result in one] == sorted(chain.key for chain in plan)
    assert sum(policies[0].sizes) == sum(policies[1].sizes) == 12
    assert max(policies[0].sizes) == 1
    assert len({result.subtasks[0].mean_llm_gmac for result in one}) == 1


def test_a_simulator_that_cannot_be_built_says_why(tmp_path):
    plan = task_chains("D", ["turn_on_led"], 1, 7)
    with pytest.raises(SimulatorError, match="unknown scene 'Z'"):
        list(evaluate(plan, tmp_path, local(Setup("playtable:Z", expert=True), None, 1)))


def test_a_simulator_that_dies_is_noticed():
    plan = task_chains("D", ["turn_on_led"], 2, 7)

    class Murderous(ScriptedPolicy):
        def step(self, observation, state):
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
            return super().step(observation, state)

    with pytest.raises(SimulatorError, match="ended by itself"):
        list(run_chains(iter(plan), Setup("playtable:D", max_steps=5), Murderous(), 1))


COMMAND = "from deer_ros.cli.main import main; main()"


def test_an_evaluation_goes_on_after_a_kill_without_losing_or_repeating_a_sequence(tmp_path):
    """kill -9 in the middle, then the same command again; against a run that nobody disturbed, with other workers."""
    plan = ["--policy", "expert", "--tasks", "turn_on_led", "turn_off_led", "open_drawer", "--starts", "8"]
    command = [sys.executable, "-c", COMMAND, "eval", *plan, "--workers"]
    folder, path = tmp_path / "killed", tmp_path / "killed" / RESULTS
    first = subprocess.Popen([*command, "2", "--out", str(folder)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert first.poll() is None, "it was over before it could be killed"
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    lines = path.read_text().split("\n")[:-1]
    assert 3 <= len(lines) < 24
    with open(path, "a") as file:
        file.write(lines[0][:50])
    subprocess.run([*command, "1", "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "2", "--out", str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL)
    assert path.read_text().split("\n")[: len(lines)] == lines
    killed, whole = read_results(folder), read_results(tmp_path / "whole")
    assert len(killed) == len(whole) == 24
    assert by_key(killed) == by_key(whole)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("killed", "whole")]
    assert reports[0]["average_length"] == reports[1]["average_length"] > 0.9
    assert reports[0]["per_task"] == reports[1]["per_task"]


def test_finished_results_are_not_run_again(tmp_path):
    plan = task_chains("D", ["turn_on_led"], 2, 7)
    first = by_key(evaluate(plan, tmp_path, local(BLIND, None, 1)))

    def never(chains):
        raise AssertionError("nothing is missing")

    assert by_key(evaluate(plan, tmp_path, never)) == first
    more = task_chains("D", ["turn_on_led"], 3, 7)
    ran = []
    list(evaluate(more, tmp_path, lambda chains: iter([ran.append(chain.key) for chain in chains] and [])))
    assert ran == [more[2].key]


def test_two_evaluations_do_not_write_into_one_folder(tmp_path):
    with open_store(tmp_path), pytest.raises(ConfigError, match="another evaluation"), open_store(tmp_path):
        pass


def test_results_of_other_settings_are_not_mixed(tmp_path):
    claim(tmp_path, {"seed": 0, "budget": (1, 2)})
    claim(tmp_path, {"seed": 0, "budget": (1, 2)})
    with pytest.raises(ConfigError, match="seed 0 and not 1"):
        claim(tmp_path, {"seed": 1, "budget": (1, 2)})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / RESULTS).write_text("")
    with pytest.raises(ConfigError, match=r"no settings\.json"):
        claim(tmp_path / "old", {"seed": 0})


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / RESULTS).write_text('{"key": "a"}\n')
    with pytest.raises(ConfigError, match="no result of this version"):
        read_results(tmp_path)


def test_a_result_comes_back_from_its_file(tmp_path):
    result = ChainResult("a", 5, ())
    with open_store(tmp_path) as (before, store):
        store.add(result)
    assert before == []
    assert read_results(tmp_path) == [result]
    assert Path(tmp_path / RESULTS).read_text().endswith("\n")
