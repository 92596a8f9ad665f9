"""Random starts: repeatable, at rest, and the task can still be done from them."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.playtable import kinematics
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.robot import INITIAL_JOINTS
from deer_sim.starts import sample_robot, sample_start
from deer_sim.tasks import TASKS, solved


@pytest.mark.parametrize("scene", "ABCD")
def test_starts_are_at_rest_where_they_say(scene):
    with PlayTable(scene, cameras=False) as table:
        for index, task in enumerate(TASKS):
            start = sample_start(task, scene, np.random.default_rng(index))
            first = table.reset(robot_obs=start.robot_obs, scene_obs=start.scene_obs)
            assert np.allclose(first.robot_obs[:3], start.robot_obs[:3], atol=1e-5), task
            for _ in range(5):
                step = table.step(np.append(np.zeros(6), start.robot_obs[14]))
            assert np.allclose(step.scene_obs[:6], start.scene_obs[:6], atol=1e-3), task
            places = (step.scene_obs - start.scene_obs)[6:].reshape(3, 6)[:, :3]
            assert np.abs(places).max() < 5e-3, task
            assert not step.state.robot_contacts, task
            assert not solved(first.state, step.state), task


def needs(task, start, state) -> bool:
    """Whether the start has what the task asks for."""
    if task.startswith("turn_"):
        light = task.rsplit("_", 1)[1]
        return getattr(state, light) == task.startswith("turn_off")
    if task == "open_drawer":
        return state.drawer < 0.08
    if task == "close_drawer":
        return state.drawer > 0.14
    if task.startswith("move_slider"):
        return state.slider < 0.13 if task.endswith("left") else state.slider > 0.17
    block = next((name for name in state.blocks if f"_{name}_" in task), None)
    contacts = {link for _, link in state.blocks[block].contacts} if block else set()
    if task.startswith("lift"):
        surface = {"table": "base_link", "slider": "plank_link", "drawer": "drawer_link"}[task.rsplit("_", 1)[1]]
        return surface in contacts
    if task.startswith(("rotate", "push_red", "push_blue", "push_pink")):
        return contacts == {"base_link"}
    if task == "push_into_drawer":
        return state.drawer > 0.2 and any(block.contacts == {("table", "base_link")} for block in state.blocks.values())
    if task == "unstack_block":
        return any({body for body, _ in block.contacts} <= set(state.blocks) for block in state.blocks.values())
    return len(start.prefix) == 1 and start.prefix[0].endswith("_table")


def test_the_task_can_be_done():
    with PlayTable("C", cameras=False) as table:
        for index, task in enumerate(TASKS):
            for seed in range(3):
                start = sample_start(task, "C", np.random.default_rng([index, seed]))
                table.reset(robot_obs=start.robot_obs, scene_obs=start.scene_obs)
                for _ in range(5):
                    step = table.step(np.append(np.zeros(6), start.robot_obs[14]))
                assert needs(task, start, step.state), (task, seed)
                assert bool(start.prefix) == (task in ("place_in_slider", "place_in_drawer", "stack_block"))


def test_the_seed_decides():
    first, second = (sample_start("open_drawer", "D", np.random.default_rng(7)) for _ in range(2))
    other = sample_start("open_drawer", "D", np.random.default_rng(8))
    assert np.array_equal(first.scene_obs, second.scene_obs)
    assert np.array_equal(first.robot_obs, second.robot_obs)
    assert not np.array_equal(first.robot_obs, other.robot_obs)


def test_the_hand_starts_open_or_closed_and_near_its_initial_pose():
    home, _ = kinematics.forward(np.array(INITIAL_JOINTS))
    states = np.array([sample_robot(np.random.default_rng(seed)) for seed in range(40)])
    assert set(states[:, 14]) == {-1.0, 1.0}
    assert np.array_equal(states[:, 6], np.where(states[:, 14] > 0, 0.08, 0.0))
    assert np.abs(states[:, :3] - home).max() <= 0.06
    assert np.abs(states[:, :3] - home).max() > 0.05


def test_unknown_names_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="unknown task 'dance'"):
        sample_start("dance", "D", rng)
    with pytest.raises(SimulatorError, match="unknown scene 'Z'"):
        sample_start("open_drawer", "Z", rng)
