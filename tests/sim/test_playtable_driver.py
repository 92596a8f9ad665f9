"""The play table as an arm's driver needs it: where its cameras see things, joint targets, openings of the gripper."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.engine.pinhole import gripper_pinhole, static_pinhole
from deer_sim.expert.view import rotation_of
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.robot import INITIAL_JOINTS

pytest.importorskip("pybullet")

BALL_M = 0.006
OPEN_M = 0.08


@pytest.fixture(scope="module")
def table():
    with PlayTable("D") as made:
        yield made


def seen_at(table, index, place):
    """Column and row of the middle of what a ball at `place` changes in a picture."""
    client = table._client
    before = table.pictures()[index].astype(int)
    shape = client.createVisualShape(client.GEOM_SPHERE, radius=BALL_M, rgbaColor=(0, 1, 0, 1))
    ball = client.createMultiBody(0, -1, shape, list(place))
    after = table.pictures()[index].astype(int)
    client.removeBody(ball)
    rows, columns = np.nonzero(np.abs(after - before).sum(axis=2) > 30)
    return np.array((columns.mean(), rows.mean()))


@pytest.mark.parametrize("place", [(0.0, -0.3, 0.6), (-0.15, -0.2, 0.6), (0.15, -0.4, 0.55)])
def test_the_static_camera_sees_a_point_where_its_pinhole_says(table, place):
    now = table.reset(3)
    camera = static_pinhole(table.lenses(), now.rgb_static.shape)
    assert (camera.columns, camera.rows) == (200, 200)
    np.testing.assert_allclose(seen_at(table, 0, place), camera.pixel(np.array(place)), atol=0.6)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.06), (0.025, 0.01, 0.09), (-0.02, 0.02, 0.08)])
def test_the_gripper_camera_sees_a_point_where_its_pinhole_says(table, place):
    """The point is told in the optical frame: x to the right, y down, z forward."""
    now = table.reset(3)
    camera = gripper_pinhole(table.lenses(), now.rgb_gripper.shape)
    in_tool = (camera.parent_from_optical @ np.append(place, 1.0))[:3]
    in_world = rotation_of(now.robot_obs[3:6]) @ in_tool + now.robot_obs[:3]
    column, row = seen_at(table, 1, in_world)
    np.testing.assert_allclose((column, row), camera.pixel(in_tool), atol=0.6)
    assert np.sign(column - camera.cx) == np.sign(place[0]) or place[0] == 0.0
    assert np.sign(row - camera.cy) == np.sign(place[1]) or place[1] == 0.0


def test_driving_by_steps_is_the_same_as_actions(table):
    """To the bit, with the gripper open and closed, so that a driver and a rollout agree."""
    steps = np.random.default_rng(0).uniform(-1.0, 1.0, (6, 6))
    table.reset(5)
    by_actions = [table.step(np.append(step, sign), look=False) for step, sign in zip(steps, [1, -1] * 3, strict=True)]
    table.reset(5)
    by_steps = [table.drive(width, step, look=False) for step, width in zip(steps, [OPEN_M, 0.0] * 3, strict=True)]
    for one, other in zip(by_actions, by_steps, strict=True):
        np.testing.assert_array_equal(one.robot_obs, other.robot_obs)


def test_joint_targets_are_reached_and_steps_go_on_from_there(table):
    table.reset(0)
    target = np.add(INITIAL_JOINTS, (0.2, -0.1, 0.15, 0.1, -0.2, 0.1, 0.3))
    for _ in range(40):
        now = table.drive(OPEN_M, joints=target, look=False)
    np.testing.assert_allclose(now.robot_obs[7:14], target, atol=0.01)
    before = now.robot_obs[:3]
    for _ in range(20):
        now = table.drive(OPEN_M, look=False)
    np.testing.assert_allclose(now.robot_obs[:3], before, atol=0.005)


def test_the_gripper_goes_to_an_opening_in_between(table):
    table.reset(0)
    for _ in range(40):
        now = table.drive(0.05, look=False)
    assert now.robot_obs[6] == pytest.approx(0.05, abs=0.002)
    assert now.robot_obs[14] == 1.0
    for _ in range(40):
        now = table.drive(-1.0, look=False)
    assert now.robot_obs[6] == pytest.approx(0.0, abs=0.002)
    assert now.robot_obs[14] == -1.0


def test_what_is_not_finite_is_refused_and_nothing_moves(table):
    now = table.reset(0)
    for command in ({"joints": np.full(7, np.nan)}, {"pose_step": np.full(6, np.inf)}, {"joints": np.zeros(6)}):
        with pytest.raises(ConfigError, match=next(iter(command))):
            table.drive(OPEN_M, **command)
    with pytest.raises(ConfigError, match="opening_m"):
        table.drive(np.nan)
    assert table.look().step == now.step
    with PlayTable("D", cameras=False) as fresh, pytest.raises(SimulatorError, match="drive was called before reset"):
        fresh.drive(OPEN_M)
