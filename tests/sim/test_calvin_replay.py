"""Recordings of trajectories: written, read, refused when damaged, and compared with a replay."""

import json
from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_sim.calvin.recording import read_recording, write_recording
from deer_sim.calvin.replay import record, replay
from deer_sim.calvin.sequences import start_state
from deer_sim.playtable.environment import PlayTable

CONDITION = {
    "led": 0,
    "lightbulb": 1,
    "slider": "right",
    "drawer": "open",
    "red_block": "slider_right",
    "blue_block": "table",
    "pink_block": "table",
    "grasped": 0,
}


def actions(steps, seed=0):
    """A random walk (steps, 7) that sinks onto the table."""
    rng = np.random.default_rng(seed)
    walk = np.clip(0.4 * rng.normal(size=(steps, 7)) + np.array([0, 0, -0.5, 0, 0, 0, 0]), -1, 1)
    walk[:, 6] = np.where(rng.random(steps) < 0.5, -1.0, 1.0)
    return walk


@pytest.fixture(scope="module")
def table():
    with PlayTable("D", cameras=False) as environment:
        yield environment


@pytest.fixture(scope="module")
def recorded(table):
    return record(table, "D", *start_state(CONDITION), actions(25), picture_steps=(0, 25))


def test_a_replay_of_what_was_recorded_holds_after_writing_and_reading(table, recorded, tmp_path):
    write_recording(tmp_path / "walk.npz", recorded)
    found = replay(read_recording(tmp_path / "walk.npz"), table)
    assert found.holds
    assert (found.robot_obs, found.scene_obs, found.picture_mean, found.picture_max) == (0.0, 0.0, 0.0, 0.0)


def shifted(values, place, by):
    """A copy with one entry changed."""
    copy = values.copy()
    copy[place] += by
    return copy


def test_each_kind_of_difference_is_found(table, recorded):
    robot = replay(replace(recorded, robot_obs=shifted(recorded.robot_obs, (20, 1), 2e-4)), table)
    assert not robot.holds
    assert robot.robot_obs == pytest.approx(2e-4)
    scene = replay(replace(recorded, scene_obs=shifted(recorded.scene_obs, (7, 12), -0.5)), table)
    assert not scene.holds
    assert scene.scene_obs == pytest.approx(0.5)
    names = [*recorded.solved[:18], recorded.solved[18] ^ {"open_drawer"}, *recorded.solved[19:]]
    tasks = replay(replace(recorded, solved=tuple(names)), table)
    assert not tasks.holds
    assert tasks.solved_step == 18
    darker = replay(replace(recorded, rgb_gripper=recorded.rgb_gripper // 2), table)
    assert not darker.holds
    assert darker.picture_mean > 1.0
    smaller = replay(replace(recorded, rgb_static=recorded.rgb_static[:, ::2]), table)
    assert not smaller.holds
    slightly = replay(replace(recorded, rgb_static=recorded.rgb_static ^ 1), table)
    assert slightly.holds
    assert slightly.picture_max == 1.0


def test_angles_are_compared_modulo_a_turn(table, recorded):
    turned = replay(replace(recorded, robot_obs=shifted(recorded.robot_obs, (3, 3), 2 * np.pi)), table)
    assert turned.robot_obs < 1e-9
    place = replay(replace(recorded, robot_obs=shifted(recorded.robot_obs, (3, 0), 2 * np.pi)), table)
    assert place.robot_obs == pytest.approx(2 * np.pi)


def test_subtasks_are_judged_from_where_they_begin(tmp_path, recorded):
    write_recording(tmp_path / "walk.npz", recorded)
    with np.load(tmp_path / "walk.npz") as file:
        values = dict(file)
    values["subtasks"] = json.dumps([["open_drawer", 0, 10, True], ["close_drawer", 10, 25, False]])
    values["initial"] = json.dumps(CONDITION)
    np.savez(tmp_path / "expert.npz", **values)
    read = read_recording(tmp_path / "expert.npz")
    assert read.judged_from == (0,) * 10 + (10,) * 15
    assert np.array_equal(read.scene_start, start_state(CONDITION)[1])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda values: values.pop("solved"), "it lacks solved"),
        (lambda values: values.update(robot_obs=values["robot_obs"][1:]), r"robot_obs is \(25, 15\)"),
        (lambda values: values.update(scene_obs=np.full((26, 24), np.nan)), "scene_obs is .* not finite"),
        (lambda values: values.update(solved=np.array(["fly"] * 25)), r"unknown tasks \['fly'\]"),
        (lambda values: values.update(actions=values["actions"] * 0.5), "not all -1 or 1"),
        (lambda values: values.update(initial="{"), "malformed"),
        (lambda values: values.update(initial='{"led": 1}'), "malformed"),
        (lambda values: values.update(subtasks="[[1]]"), "malformed"),
        (lambda values: values.update(rgb_step=np.array([0, 26])), "steps beyond the recording's 0 to 25"),
        (lambda values: values.update(rgb_static=values["rgb_static"][:1]), "rgb_static is uint8"),
    ],
)
def test_a_malformed_recording_is_refused(recorded, tmp_path, change, problem):
    path = tmp_path / "walk.npz"
    write_recording(path, recorded)
    with np.load(path) as file:
        values = dict(file)
    change(values)
    np.savez(path, **values)
    with pytest.raises(ConfigError, match=problem):
        read_recording(path)


def test_a_damaged_file_is_refused(recorded, tmp_path):
    path = tmp_path / "walk.npz"
    write_recording(path, recorded)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ConfigError, match="can't read the recording"):
        read_recording(path)
    with pytest.raises(ConfigError, match="can't read the recording"):
        read_recording(tmp_path / "none.npz")
