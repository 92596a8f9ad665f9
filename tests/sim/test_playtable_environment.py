"""PlayTable: determinism, isolation, actions, observations, and the logic of its lights."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.environment import Environment
from deer_sim.playtable.environment import PlayTable

STAY = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])


def walk(seed: int, steps: int) -> np.ndarray:
    """A smooth random walk (steps, 7) that sinks, so that it touches things."""
    rng = np.random.default_rng(seed)
    actions, action = [], np.zeros(7)
    for _ in range(steps):
        action = np.clip(0.7 * action + 0.5 * rng.normal(size=7) + np.array([0, 0, -0.15, 0, 0, 0, 0]), -1, 1)
        actions.append(action)
    return np.array(actions)


def trajectory(environment: PlayTable, seed: int, actions: np.ndarray) -> np.ndarray:
    """robot_obs and scene_obs of a whole episode (steps + 1, 39)."""
    steps = [environment.reset(seed=seed)] + [environment.step(action) for action in actions]
    return np.array([np.concatenate([step.robot_obs, step.scene_obs]) for step in steps])


@pytest.fixture(scope="module")
def table():
    with PlayTable("D", cameras=False) as environment:
        yield environment


def test_same_arguments_give_the_same_episode_whatever_ran_before(table):
    first = trajectory(table, 1, walk(5, 120))
    trajectory(table, 2, walk(6, 90))
    trajectory(table, 3, walk(7, 90))
    assert np.array_equal(trajectory(table, 1, walk(5, 120)), first)
    with PlayTable("D", cameras=False) as fresh:
        assert np.array_equal(trajectory(fresh, 1, walk(5, 120)), first)
    assert not np.array_equal(trajectory(table, 2, walk(5, 1))[0], first[0])


def test_two_environments_do_not_disturb_each_other():
    with PlayTable("A", cameras=False) as first, PlayTable("C", cameras=False) as second:
        alone = [trajectory(first, 1, walk(8, 60)), trajectory(second, 2, walk(9, 60))]
        steps = [[first.reset(seed=1)], [second.reset(seed=2)]]
        for one, other in zip(walk(8, 60), walk(9, 60), strict=True):
            steps[0].append(first.step(one))
            steps[1].append(second.step(other))
    for together, expected in zip(steps, alone, strict=True):
        found = np.array([np.concatenate([step.robot_obs, step.scene_obs]) for step in together])
        assert np.array_equal(found, expected)


def test_looking_changes_nothing_and_can_be_made_up_for():
    actions = walk(5, 40)
    with PlayTable("D") as seeing, PlayTable("D") as glancing:
        pairs = [(seeing.reset(seed=1), glancing.reset(seed=1))]
        for number, action in enumerate(actions):
            unseen = glancing.step(action, look=False)
            assert unseen.rgb_static is unseen.rgb_gripper is None
            pairs.append((seeing.step(action), glancing.look() if number % 3 == 2 else unseen))
        assert glancing.look() is glancing.look()
    for with_pictures, other in pairs:
        assert np.array_equal(with_pictures.robot_obs, other.robot_obs)
        assert np.array_equal(with_pictures.scene_obs, other.scene_obs)
        assert with_pictures.state.robot_contacts == other.state.robot_contacts
        if other.rgb_static is not None:
            assert np.array_equal(with_pictures.rgb_static, other.rgb_static)
            assert np.array_equal(with_pictures.rgb_gripper, other.rgb_gripper)
    assert sum(other.rgb_static is not None for _, other in pairs) == 14


def test_without_cameras_there_is_nothing_to_look_at(table):
    table.reset(seed=1)
    assert table.look().rgb_static is None
    with pytest.raises(ValueError, match="no pictures to show a policy"):
        table.look().observation("lamp")


def test_actions_are_clipped(table):
    action = np.array([3.0, -7.0, 1.5, -2.0, 9.0, 1.1, 0.2])
    limited = np.append(np.clip(action[:6], -1, 1), 1.0)
    table.reset(seed=0)
    wide = table.step(action)
    table.reset(seed=0)
    assert np.array_equal(table.step(limited).robot_obs, wide.robot_obs)


@pytest.mark.parametrize(
    ("action", "problem"),
    [
        (np.array([0, 0, np.nan, 0, 0, 0, 1.0]), "not finite"),
        (np.array([0, np.inf, 0, 0, 0, 0, 1.0]), "not finite"),
        (np.zeros(6), r"\(6,\)"),
        (np.zeros((1, 7)), r"\(1, 7\)"),
    ],
)
def test_bad_actions_are_refused_and_nothing_moves(table, action, problem):
    table.reset(seed=0)
    table.step(STAY)
    with pytest.raises(ConfigError, match=problem):
        table.step(action)
    after_refusal = table.step(STAY)
    table.reset(seed=0)
    table.step(STAY)
    assert np.array_equal(table.step(STAY).robot_obs, after_refusal.robot_obs)
    assert after_refusal.step == 2


def test_bad_states_and_scenes_are_refused(table):
    with pytest.raises(ConfigError, match=r"robot_obs has shape \(14,\)"):
        table.reset(robot_obs=np.zeros(14))
    with pytest.raises(ConfigError, match="scene_obs holds values that are not finite"):
        table.reset(scene_obs=np.full(24, np.nan))
    with pytest.raises(SimulatorError, match="unknown scene 'E'; allowed: A, B, C, D"):
        PlayTable("E")
    with PlayTable("D", cameras=False) as fresh, pytest.raises(SimulatorError, match="call reset first"):
        fresh.step(STAY)
    with PlayTable("D", cameras=False) as fresh, pytest.raises(SimulatorError, match="call reset first"):
        fresh.look()


def test_closing_twice_is_harmless_and_the_protocol_is_met():
    environment: Environment = PlayTable("B", cameras=False)
    assert environment.spec.name == "playtable:B"
    assert environment.spec.block_order == ("red", "blue", "pink")
    environment.close()
    environment.close()


def test_the_given_state_is_taken_over(table):
    robot_obs, scene_obs = table.reset(seed=4).robot_obs, table.reset(seed=4).scene_obs
    robot_obs[7:14] += 0.05
    robot_obs[6], robot_obs[14] = 0.0, -1.0
    scene_obs[:6] = [0.2, 0.1, 0.0, 0.088, 1.0, 1.0]
    step = table.reset(robot_obs=robot_obs, scene_obs=scene_obs)
    assert np.allclose(step.robot_obs[7:15], robot_obs[7:15], atol=1e-4)
    assert abs(step.robot_obs[6]) < 1e-4
    assert np.allclose(step.scene_obs[:6], scene_obs[:6], atol=1e-3)
    assert np.allclose(step.scene_obs[6:].reshape(3, 6)[:, :2], scene_obs[6:].reshape(3, 6)[:, :2], atol=2e-3)
    assert step.state.lightbulb
    assert step.state.led


def test_the_last_gripper_action_does_not_outlive_a_reset(table):
    table.reset(seed=0)
    assert table.step(np.append(np.zeros(6), -1.0)).robot_obs[14] == -1.0
    assert table.reset(seed=0).robot_obs[14] == 1.0


def test_a_unit_action_moves_the_tool_by_two_centimetres(table):
    start = table.reset(seed=0).robot_obs
    for _ in range(3):
        step = table.step(np.array([0, 0, 1.0, 0, 0, 0, 1]))
    for _ in range(10):
        step = table.step(STAY)
    assert np.allclose(step.robot_obs[:3] - start[:3], [0, 0, 0.06], atol=1e-3)
    assert step.time_s == pytest.approx(13 / 30)


def test_random_blocks_lie_apart_on_the_surfaces():
    for name in "ABCD":
        with PlayTable(name, cameras=False) as environment:
            for seed in range(5):
                step = environment.reset(seed=seed)
                assert not step.scene_obs[:2].round(2).any()
                assert not step.scene_obs[2:6].any()
                for place in step.scene_obs[6:].reshape(3, 6)[:, :3]:
                    inside = [
                        area.x[0] - 0.03 <= place[0] <= area.x[1] + 0.03
                        and area.y[0] - 0.03 <= place[1] <= area.y[1] + 0.03
                        for area in environment.scene.surfaces.values()
                    ]
                    assert any(inside)
                assert all(
                    body not in ("red", "blue", "pink")
                    for block in step.state.blocks.values()
                    for body, _ in block.contacts
                )


def lights(environment: PlayTable, button: float, switch: float) -> tuple[float, float]:
    """Bulb and LED after one control step with the button and the switch held."""
    client, fixtures = environment._client, environment._fixtures
    for index, position in zip(fixtures._joints[2:], (button, switch), strict=True):
        client.resetJointState(fixtures.body, index, position)
    fixtures.update()
    return float(fixtures.lightbulb), float(fixtures.led)


def test_the_button_toggles_the_led_on_its_way_down_only(table):
    table.reset(seed=0)
    assert lights(table, 0.0, 0.0) == (0, 0)
    assert lights(table, 0.009, 0.0) == (0, 0)
    assert lights(table, 0.015, 0.0) == (0, 1)
    assert lights(table, 0.018, 0.0) == (0, 1)
    assert lights(table, 0.0, 0.0) == (0, 1)
    assert lights(table, 0.015, 0.0) == (0, 0)


def test_the_switch_sets_the_bulb(table):
    table.reset(seed=0)
    assert lights(table, 0.0, 0.043) == (0, 0)
    assert lights(table, 0.0, 0.046) == (1, 0)
    assert lights(table, 0.0, 0.088) == (1, 0)
    assert lights(table, 0.0, 0.02) == (0, 0)


def test_a_bulb_lit_at_reset_with_the_switch_down_stays_lit_until_the_switch_was_up(table):
    scene_obs = table.reset(seed=0).scene_obs
    scene_obs[3:5] = 0.0, 1.0
    table.reset(scene_obs=scene_obs)
    assert lights(table, 0.0, 0.0) == (1, 0)
    assert lights(table, 0.0, 0.08) == (1, 0)
    assert lights(table, 0.0, 0.0) == (0, 0)


def test_doors_stay_where_they_are_and_the_button_returns(table):
    scene_obs = table.reset(seed=0).scene_obs
    scene_obs[:4] = 0.1, 0.1, 0.02, 0.05
    table.reset(scene_obs=scene_obs)
    for _ in range(30):
        step = table.step(STAY)
    assert np.allclose(step.scene_obs[:2], 0.1, atol=2e-3)
    assert step.scene_obs[2] < 1e-3
    assert abs(step.scene_obs[3] - 0.05) < 2e-3
