"""The evaluation sequences and starts that are made from rules, against the official ones."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_sim.calvin.rules import CATEGORIES, after, defies_door, starting_conditions
from deer_sim.calvin.sequences import START_ROBOT_OBS, TaskSequence, fnv1_32, start_state, task_sequences

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "calvin" / "eval_sequences.json"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} with the official sequences is not on this machine")
    return [TaskSequence(condition, tuple(tasks)) for condition, tasks in json.loads(GOLDEN.read_text())]


def test_the_first_sequences_are_the_official_ones(golden):
    assert task_sequences(25) == golden[:25]


@pytest.mark.slow
def test_all_sequences_are_the_official_ones():
    plain = [[dict(sequence.condition), list(sequence.tasks)] for sequence in task_sequences()]
    text = json.dumps(plain, separators=(",", ":"), sort_keys=True)
    known = "90191d9ac76baecb4f292ab766bbbf3ae65dbf43a83bbe5c376d99db10fd6446"
    assert hashlib.sha256(text.encode()).hexdigest() == known


def test_every_start_is_the_official_one(golden):
    states = [start_state(sequence.condition) for sequence in golden]
    known = "1a25eaf9bb3f57459937b95423f2a673e277945064e5c09c9c7cb97b3ff87150"
    assert hashlib.sha256(np.concatenate([scene for _, scene in states]).tobytes()).hexdigest() == known
    assert all(robot.tolist() == list(START_ROBOT_OBS) for robot, _ in states)


def test_the_hash_is_that_of_pyhash():
    # https://github.com/flier/pyfasthash, tests/test_fnv1.py, unicode_hash
    assert fnv1_32("test") == 3910690890


def test_another_seed_gives_other_sequences_and_starts_by_the_same_rules():
    official, others = task_sequences(5), task_sequences(5, seed=3)
    assert others == task_sequences(5, seed=3)
    assert [other.tasks for other in others] != [sequence.tasks for sequence in official]
    for sequence in others:
        assert sequence.condition in starting_conditions()
        assert len({CATEGORIES[task] for task in sequence.tasks}) == 5
        state = sequence.condition
        for task in sequence.tasks:
            state = after(task, state)
            assert state is not None
        scene, moved = start_state(sequence.condition, 3)[1], start_state(sequence.condition)[1]
        assert (scene[:6] == moved[:6]).all()
        assert (scene != moved).any()


def test_there_are_192_starting_conditions():
    states = starting_conditions()
    assert len(states) == 192
    assert len({str(state) for state in states}) == 192


@pytest.mark.parametrize("count", [0, 1001])
def test_a_count_outside_of_the_benchmark_is_refused(count):
    with pytest.raises(ConfigError, match="ask for 1 to 1000"):
        task_sequences(count)


def test_two_blocks_to_stack_on_make_stacking_ambiguous():
    state = {**starting_conditions()[0], "red_block": "grasped", "grasped": 1, "blue_block": "table"}
    assert after("stack_block", {**state, "pink_block": "table"}) is None
    assert after("stack_block", {**state, "pink_block": "drawer"})["red_block"] == "stacked_top"


def test_five_official_sequences_defy_the_door(golden):
    assert sum(defies_door(sequence.tasks) for sequence in golden) == 5
    lift = ("lift_red_block_table", "place_in_slider", "move_slider_left")
    assert defies_door((*lift, "lift_red_block_slider"))
    assert not defies_door((*lift, "lift_blue_block_slider"))
    assert not defies_door((lift[0], lift[2], lift[1], "lift_red_block_slider"))
