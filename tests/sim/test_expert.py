"""The expert: it solves every task, finds back from pushes, mirrors the target exactly, and needs no ground truth."""

from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.collection import Disturbance, begin_at, collect_episode, run_expert
from deer_sim.environment import TimeStep
from deer_sim.expert import Expert
from deer_sim.expert.motion import Goal, TargetMirror
from deer_sim.expert.paths import TOOL_DOWN
from deer_sim.expert.view import View
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import sample_start
from deer_sim.tasks import FIXTURE_TASKS, TASKS, solved

ELSEWHERE = ["open_drawer", "move_slider_right", "turn_on_lightbulb", "rotate_red_block_left", "lift_pink_block_slider"]
PUSHED = Disturbance(push_rate=0.02, push_steps=(10, 20))


def solves(task: str, scene: str, seed: int, disturbance: Disturbance | None = None) -> bool:
    rng = np.random.default_rng([seed, TASKS.index(task)])
    with PlayTable(scene, cameras=False) as environment:
        expert = Expert(scene)
        first, _ = begin_at(environment, expert, sample_start(task, scene, rng), seed)
        return collect_episode(environment, expert, task, task, first, rng, disturbance).success


@pytest.mark.parametrize("task", TASKS)
def test_solves_the_task_in_scene_d(task: str) -> None:
    assert solves(task, "D", seed=1)


@pytest.mark.parametrize("scene", ["A", "B", "C"])
@pytest.mark.parametrize("task", ELSEWHERE)
def test_solves_tasks_in_the_other_scenes(scene: str, task: str) -> None:
    assert solves(task, scene, seed=2)


@pytest.mark.parametrize("task", FIXTURE_TASKS)
def test_solves_fixture_tasks_when_pushed(task: str) -> None:
    assert solves(task, "D", seed=3, disturbance=PUSHED)


@pytest.fixture
def table() -> PlayTable:
    with PlayTable("D", cameras=False) as environment:
        yield environment


def begun(table: PlayTable, task: str = "open_drawer", seed: int = 0) -> tuple[Expert, TimeStep]:
    expert = Expert("D")
    step, _ = begin_at(table, expert, sample_start(task, "D", np.random.default_rng(seed)), seed)
    expert.begin(task, step)
    return expert, step


@pytest.mark.parametrize(
    "chain",
    [
        ("turn_on_lightbulb", "turn_off_lightbulb", "turn_on_lightbulb"),
        ("turn_on_led", "turn_off_led", "turn_on_led"),
        ("move_slider_left", "move_slider_right", "open_drawer", "close_drawer"),
        ("close_drawer", "open_drawer", "close_drawer"),
        ("place_in_slider", "turn_off_lightbulb", "turn_off_led", "move_slider_left"),
    ],
)
def test_one_task_after_the_other_from_where_the_arm_is(table: PlayTable, chain: tuple[str, ...]) -> None:
    expert, step = begun(table, chain[0])
    for task in chain:
        step, done = run_expert(table, expert, task, step, 200)
        assert done, task


def test_block_that_is_dropped_is_taken_again(table: PlayTable) -> None:
    expert, step = begun(table, "place_in_slider")
    held_at = step.state.blocks
    first, dropped, solved_now = step, False, False
    for count in range(300):
        action = expert.action(step)
        if 2 <= count < 8:
            action[6] = 1.0
        step = table.step(action)
        expert.executed(action)
        dropped = dropped or (count > 8 and not step.state.robot_contacts)
        solved_now = bool(solved(first.state, step.state, ("place_in_slider",)))
        if solved_now:
            break
    assert any(block.position[2] > 0.48 for block in held_at.values()), "no block was in the hand"
    assert dropped
    assert solved_now


@pytest.mark.parametrize("task", FIXTURE_TASKS)
def test_fixture_tasks_leave_the_blocks_alone(task: str) -> None:
    moved = []
    for seed in range(3):
        rng = np.random.default_rng([seed, 50])
        with PlayTable("D", cameras=False) as environment:
            expert = Expert("D")
            first, _ = begin_at(environment, expert, sample_start(task, "D", rng), seed)
            made = collect_episode(environment, expert, task, task, first, rng, None).scene_obs[:, 6:]
        places = made.reshape(len(made), 3, 6)[..., :3]
        moved.append(np.linalg.norm(places[-1] - places[0], axis=1).max())
    assert np.median(moved) < 0.005


def test_mirror_of_the_target_is_exact(table: PlayTable) -> None:
    expert, _ = begun(table)
    rng = np.random.default_rng(0)
    for _ in range(30):
        action = rng.uniform(-1.5, 1.5, 7).astype(np.float32)
        table.step(action)
        expert.executed(action)
    np.testing.assert_array_equal(expert._mirror.position, table._robot._target_position)
    np.testing.assert_array_equal(expert._mirror.euler, table._robot._target_euler)


def view_at(table: PlayTable, position: np.ndarray) -> View:
    return replace(View.of(table.reset(0), table.spec.block_order), position=position, euler=TOOL_DOWN)


def test_target_does_not_wind_up_when_the_tool_is_stuck(table: PlayTable) -> None:
    stuck = view_at(table, np.array([0.0, -0.2, 0.5]))
    mirror, goal = TargetMirror(), Goal(np.array([0.5, -0.2, 0.5]), TOOL_DOWN, open=False)
    mirror.reset(stuck)
    for _ in range(60):
        mirror.advance(mirror.action_to(goal, stuck))
    assert np.linalg.norm(mirror.position - stuck.position) < 0.07


def test_action_keeps_the_direction_when_it_saturates(table: PlayTable) -> None:
    view = view_at(table, np.array([0.0, -0.2, 0.5]))
    mirror, way = TargetMirror(), np.array([0.4, 0.1, -0.2])
    mirror.reset(view)
    action = mirror.action_to(Goal(view.position + way, TOOL_DOWN, open=True), view)
    np.testing.assert_allclose(action[:3] / np.linalg.norm(action[:3]), way / np.linalg.norm(way), atol=1e-6)
    assert np.abs(action[:3]).max() == pytest.approx(1.0)
    assert action[6] == 1.0


def test_target_goes_beyond_the_goal_where_the_arm_stops_short(table: PlayTable) -> None:
    goal = np.array([0.3, -0.1, 0.5])
    short = view_at(table, goal - np.array([0.01, 0.0, 0.0]))
    mirror = TargetMirror()
    mirror.reset(replace(short, position=goal))
    assert mirror.action_to(Goal(goal, TOOL_DOWN, open=False), short)[0] > 0.1


def test_asking_twice_gives_the_same_label(table: PlayTable) -> None:
    expert, step = begun(table)
    first, second = expert.action(step), expert.action(step)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.shape == (7,)


def test_labels_stay_in_range_and_point_to_the_task_from_random_states(table: PlayTable) -> None:
    rng = np.random.default_rng(5)
    for task in FIXTURE_TASKS:
        expert, step = begun(table, task, seed=6)
        for _ in range(10):
            action = np.append(rng.uniform(-1, 1, 6), rng.choice([-1, 1]))
            step = table.step(action)
            expert.executed(action)
            label = expert.action(step)
            assert (np.abs(label) <= 1.0).all()
            assert label[6] == -1.0


def test_ground_truth_is_not_looked_at(table: PlayTable) -> None:
    expert, step = begun(table)
    blind = replace(step, state=None)
    np.testing.assert_array_equal(expert.action(blind), expert.action(step))


def test_unknown_task_and_scene_are_refused(table: PlayTable) -> None:
    expert, step = begun(table)
    with pytest.raises(ConfigError, match="no task 'fly'"):
        expert.begin("fly", step)
    with pytest.raises(SimulatorError, match="unknown scene"):
        Expert("E")


def test_action_needs_a_task(table: PlayTable) -> None:
    expert = Expert("D")
    step = table.reset(0)
    expert.reset(step)
    with pytest.raises(ConfigError, match="begin"):
        expert.action(step)


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
@pytest.mark.parametrize("task", TASKS)
def test_bar_of_19_in_20_starts(scene: str, task: str) -> None:
    assert sum(solves(task, scene, seed=100 + index) for index in range(20)) >= 19


@pytest.mark.slow
@pytest.mark.parametrize("task", FIXTURE_TASKS)
def test_bar_of_18_in_20_when_pushed(task: str) -> None:
    assert sum(solves(task, "D", seed=200 + index, disturbance=PUSHED) for index in range(20)) >= 18


def test_a_block_in_the_hand_is_set_down_before_a_task_about_something_else():
    """A turned block is still between the fingers when its task is solved, and would be dragged along."""
    with PlayTable("D", cameras=False) as table:
        expert = Expert("D")
        start = sample_start("rotate_blue_block_left", "D", np.random.default_rng(4))
        scene_obs = start.scene_obs.copy()
        scene_obs[0] = 0.0
        now = table.reset(0, start.robot_obs, scene_obs)
        expert.reset(now)
        for task in ("rotate_blue_block_left", "turn_on_led" if not now.state.led else "turn_off_led"):
            turned = now.state.blocks["blue"].position
            now, done = run_expert(table, expert, task, now, 120)
            assert done
        assert now.state.blocks["blue"].contacts == {("table", "base_link")}
        assert np.linalg.norm(now.state.blocks["blue"].position - turned) < 0.05
