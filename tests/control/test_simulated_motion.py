"""The simulated driver's own arithmetic: steps by the clock, gripper motions, joint trajectories."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.gripper_motion import GripperMotion, GripperState, GripperTolerances
from deer_ros.control.trajectory_follower import JointTrajectory, TrajectoryFollower
from deer_ros.control.wall_steps import MOST_AT_ONCE, WallSteps

START = np.linspace(-0.3, 0.3, 7)


def test_lateness_does_not_add_up():
    steps = WallSteps(0.1)
    steps.begin(5.0)
    random, now_s, times = np.random.default_rng(0), 5.0, []
    for _ in range(500):
        now_s = steps.next_s + random.uniform(0.0, 0.25)
        times += steps.due(now_s)
    assert len(times) == int((now_s - 5.0) / 0.1 + 1e-6)
    np.testing.assert_allclose(times, 5.0 + 0.1 * np.arange(1, len(times) + 1))
    assert steps.lost == 0


def test_nothing_is_due_early_and_a_step_is_due_on_time():
    steps = WallSteps(1 / 30)
    steps.begin(100.0)
    assert steps.due(100.03) == []
    assert steps.due(steps.next_s) == [pytest.approx(100 + 1 / 30)]
    assert steps.due(steps.next_s - 0.001) == []


def test_a_long_standstill_is_not_made_up_for():
    steps = WallSteps(0.1)
    steps.begin(0.0)
    times = steps.due(10.0)
    assert len(times) == MOST_AT_ONCE
    assert times[-1] == pytest.approx(10.0)
    assert steps.lost == 100 - MOST_AT_ONCE
    assert steps.next_s == pytest.approx(10.1)


def moved(target, openings, period_s=0.1, **tolerances):
    motion = GripperMotion(target, GripperTolerances(**tolerances))
    return [motion.observe(opening, index * period_s) for index, opening in enumerate(openings)]


def test_a_gripper_that_gets_there_has_reached_its_goal():
    states = moved(0.0, [0.08, 0.05, 0.02, 0.0015, 0.0])
    assert states == [GripperState.MOVING] * 3 + [GripperState.REACHED] * 2


def test_a_gripper_that_is_held_up_stalls_after_the_timeout():
    states = moved(0.0, [0.08, 0.06, 0.05, 0.05, 0.05, 0.05, 0.05], stall_timeout_s=0.35)
    assert states == [GripperState.MOVING] * 6 + [GripperState.STALLED]


def test_a_slow_gripper_is_not_stalled_and_an_end_is_final():
    assert moved(0.0, np.linspace(0.08, 0.07, 21), stall_timeout_s=0.3)[-1] is GripperState.MOVING
    states = moved(0.0, [0.001, 0.08, 0.08])
    assert states == [GripperState.REACHED] * 3


def test_wrong_gripper_settings_are_refused():
    with pytest.raises(ConfigError, match="nan is not finite"):
        GripperMotion(float("nan"), GripperTolerances())
    with pytest.raises(ConfigError, match="positive"):
        GripperTolerances(stall_timeout_s=0.0)


def line(*points, velocities=None):
    """A trajectory that turns all joints alike, from (time, angle) pairs."""
    times, angles = zip(*points, strict=True)
    turned = [np.full(7, angle) for angle in angles]
    speeds = None if velocities is None else np.array([np.full(7, speed) for speed in velocities])
    return JointTrajectory(np.array(times), np.array(turned), speeds)


def test_without_velocities_the_joints_go_straight_from_where_they_are():
    follower = TrajectoryFollower()
    assert follower.sample(0.0) is None
    follower.take(line((1.0, 0.5), (2.0, 1.5)), 10.0, 10.0, START)
    np.testing.assert_allclose(follower.sample(10.0), START)
    np.testing.assert_allclose(follower.sample(10.5), (START + 0.5) / 2)
    np.testing.assert_allclose(follower.sample(11.0), 0.5)
    np.testing.assert_allclose(follower.sample(11.25), 0.75)
    np.testing.assert_allclose(follower.sample(99.0), 1.5)


def test_with_velocities_the_path_is_a_smooth_cubic():
    follower = TrajectoryFollower()
    follower.take(line((1.0, 1.0), (2.0, 1.0), velocities=(1.5, 0.0)), 0.0, 0.0, np.zeros(7))
    times = np.linspace(0.0, 2.0, 2001)
    path = np.array([follower.sample(time)[0] for time in times])
    speed = np.gradient(path, times)
    assert path[1000] == pytest.approx(1.0)
    assert speed[0] == pytest.approx(0.0, abs=5e-3)
    assert speed[1000] == pytest.approx(1.5, abs=5e-3)
    assert speed[-1] == pytest.approx(0.0, abs=5e-3)
    assert np.abs(np.diff(speed)).max() < 0.02


def test_the_newest_replaces_the_one_before_from_where_that_is():
    follower = TrajectoryFollower()
    follower.take(line((2.0, 2.0)), 0.0, 0.0, np.zeros(7))
    follower.take(line((1.0, 0.0)), 1.0, 1.0, np.full(7, 99.0))
    np.testing.assert_allclose(follower.sample(1.0), 1.0)
    np.testing.assert_allclose(follower.sample(1.5), 0.5)
    follower.clear()
    assert follower.sample(1.5) is None


def test_one_that_began_earlier_is_joined_where_it_is_by_now():
    follower = TrajectoryFollower()
    follower.take(line((0.0, 0.0), (2.0, 2.0)), 0.0, 1.0, START)
    np.testing.assert_allclose(follower.sample(1.0), 1.0)


def test_a_past_or_misshapen_trajectory_is_refused_and_the_one_before_goes_on():
    follower = TrajectoryFollower()
    follower.take(line((1.0, 1.0)), 0.0, 0.0, np.zeros(7))
    with pytest.raises(ConfigError, match=r"ended 0\.500 s ago"):
        follower.take(line((1.0, 9.0)), -1.0, 0.5, START)
    np.testing.assert_allclose(follower.sample(0.5), 0.5)
    for points, message in (
        ([(1.0, 0.0), (1.0, 0.0)], "rise from point to point"),
        ([(-1.0, 0.0)], "must be 0 or more"),
        ([(1.0, np.nan)], "finite"),
    ):
        with pytest.raises(ConfigError, match=message):
            line(*points)
    with pytest.raises(ConfigError, match="no points"):
        JointTrajectory(np.zeros(0), np.zeros((0, 7)))
