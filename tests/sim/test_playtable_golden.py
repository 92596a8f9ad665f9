"""PlayTable against trajectories that were recorded from the official environment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deer_sim.playtable.environment import PlayTable
from deer_sim.tasks import solved

GOLDEN = Path(__file__).resolve().parents[3] / "shared/golden/calvin"
EXPERTS = ("D_expert_0", "D_expert_1", "D_expert_2", "D_expert_3", "D_expert_5")
WALKS = tuple(f"{scene}_walk_{number}" for scene in "ABCD" for number in (11, 12))

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the recorded trajectories in {GOLDEN}")


def replay(name: str):
    """The recording, and the time steps of replaying its actions."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        recorded = {key: file[key] for key in file.files}
    with PlayTable(str(recorded["scene_name"]), cameras=False) as table:
        steps = [table.reset(robot_obs=recorded["robot_obs"][0], scene_obs=recorded["scene_obs"][0])]
        steps += [table.step(action) for action in recorded["actions"]]
    return recorded, steps


@pytest.fixture(scope="module")
def replays():
    return {name: replay(name) for name in EXPERTS}


def pose_error(steps, recorded) -> np.ndarray:
    """Largest difference of tool position (m) and orientation (rad) at each step."""
    found = np.array([step.robot_obs[:6] for step in steps])
    difference = found - recorded["robot_obs"][:, :6]
    difference[:, 3:] = (difference[:, 3:] + np.pi) % (2 * np.pi) - np.pi
    return np.abs(difference).max(axis=1)


@pytest.mark.parametrize("name", [*EXPERTS, *WALKS])
def test_free_motion_is_the_same(name, replays):
    recorded, steps = replays[name] if name in replays else replay(name)
    touching = [index for index, step in enumerate(steps) if step.state.robot_contacts]
    free = touching[0] if touching else len(steps)
    assert free >= 14
    assert pose_error(steps, recorded)[:free].max() < 1e-5


@pytest.mark.parametrize("name", EXPERTS)
def test_the_tool_stays_close_through_all_contacts(name, replays):
    recorded, steps = replays[name]
    error = np.abs(np.array([step.robot_obs[:3] for step in steps]) - recorded["robot_obs"][:, :3]).max(axis=1)
    # A block that is pushed over the table's edge tips and falls differently each time, hence not the maximum.
    assert np.quantile(error, 0.8) < 1e-3


@pytest.mark.parametrize("name", EXPERTS)
def test_the_same_subtasks_are_solved_at_the_same_time(name, replays):
    recorded, steps = replays[name]
    missed = []
    for task, first, last, success in json.loads(str(recorded["subtasks"])):
        hits = [index for index in range(first, last) if task in solved(steps[first].state, steps[index + 1].state)]
        assert success or not hits
        if success and not (hits and abs(hits[0] - (last - 1)) <= 3):
            missed.append(task)
    # One motion pushes the switch with a block that lies a little differently in the hand, and ends 1.6 cm short.
    assert missed == (["turn_off_lightbulb"] if name == "D_expert_5" else [])


def test_conditions_agree_with_the_official_ones_on_the_way(replays):
    """In at least 97 of 100 steps the set of solved tasks is the recorded one."""
    same, total = 0, 0
    for recorded, steps in replays.values():
        for _, first, last, _ in json.loads(str(recorded["subtasks"])):
            for index in range(first, last):
                official = {task for task in str(recorded["solved"][index]).split("|") if task}
                same += solved(steps[first].state, steps[index + 1].state) == official
                total += 1
    assert same / total > 0.97


def test_blocks_come_to_rest_at_the_same_height(replays):
    recorded, steps = replays["D_expert_0"]
    heights = steps[20].scene_obs[[8, 14, 20]]
    assert np.abs(heights - recorded["scene_obs"][20][[8, 14, 20]]).max() < 2e-4
