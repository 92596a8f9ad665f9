"""Commands at the controller's rate: smooth, never beyond a limit, at the target without overshoot, at rest in time."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist
from deer_ros.control.command_shaper import CommandShaper
from tests.control.test_safety import CENTRE, LIMITS

PERIOD_S = 0.01
WIDE = replace(LIMITS, workspace_low_m=(-100.0,) * 3, workspace_high_m=(100.0,) * 3)
vectors = st.tuples(*[st.floats(-0.6, 0.6)] * 3).map(np.array)


def ahead(x=0.0, y=0.0, turn=0.0):
    return Twist(np.array((x, y, 0.0)), np.array((0.0, 0.0, turn)))


def run(shaper, target, steps, position=CENTRE, period_s=PERIOD_S):
    return np.array([shaper.towards(target, position, period_s)[0].linear for _ in range(steps)])


@pytest.mark.parametrize("speed", [0.2, 0.13, WIDE.linear_speed_m_s])
def test_the_target_is_reached_without_overshoot_and_as_fast_as_the_limits_let(speed):
    speeds = run(CommandShaper(WIDE, 0.08), ahead(speed), 40)[:, 0]
    acceleration, jerk = WIDE.linear_acceleration_m_s2, WIDE.linear_jerk_m_s3
    shortest_s = speed / acceleration + acceleration / jerk
    arrived = int(np.argmax(speeds == speed)) + 1
    assert speeds.max() == speed
    assert arrived * PERIOD_S == pytest.approx(shortest_s, abs=1.5 * PERIOD_S)
    assert (speeds[arrived - 1 :] == speed).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(vectors, st.integers(1, 12)), min_size=1, max_size=12))
def test_speed_acceleration_and_jerk_stay_within_their_limits(targets):
    """Whatever is asked for and however often it changes."""
    shaper = CommandShaper(WIDE, 0.08)
    speeds = np.concatenate(
        [np.zeros((2, 3)), *(run(shaper, Twist(vector, vector), steps) for vector, steps in targets)]
    )
    accelerations = np.diff(speeds, axis=0) / PERIOD_S
    jerks = np.diff(accelerations, axis=0) / PERIOD_S
    assert np.linalg.norm(speeds, axis=1).max() <= WIDE.linear_speed_m_s * (1 + 1e-8)
    assert np.linalg.norm(accelerations, axis=1).max() <= WIDE.linear_acceleration_m_s2 * (1 + 1e-6)
    assert np.linalg.norm(jerks, axis=1).max() <= WIDE.linear_jerk_m_s3 * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(vectors, st.integers(1, 30)), min_size=1, max_size=10))
def test_an_arm_that_follows_never_leaves_the_box(targets):
    shaper, position = CommandShaper(LIMITS, 0.08), CENTRE.copy()
    for vector, steps in targets:
        for _ in range(steps):
            position = position + shaper.towards(Twist(10 * vector, vector), position, PERIOD_S)[0].linear * PERIOD_S
            assert (position >= np.array(LIMITS.workspace_low_m) - 1e-9).all()
            assert (position <= np.array(LIMITS.workspace_high_m) + 1e-9).all()


def test_at_a_wall_the_arm_comes_to_rest_with_little_more_than_the_limits():
    """The hard clip at the wall is there for the worst case; the slowing before it makes it almost idle."""
    shaper, position, speeds = CommandShaper(LIMITS, 0.08), CENTRE.copy(), [0.0]
    for _ in range(400):
        speeds.append(shaper.towards(ahead(1.0), position, PERIOD_S)[0].linear[0])
        position = position + np.array((speeds[-1] * PERIOD_S, 0.0, 0.0))
    assert position[0] == pytest.approx(0.4, abs=2e-3)
    assert np.abs(np.diff(speeds)).max() / PERIOD_S <= LIMITS.linear_acceleration_m_s2 * 1.05


def test_braking_ends_in_time_and_is_smooth():
    shaper = CommandShaper(WIDE, 0.08)
    run(shaper, ahead(0.25), 40)
    speeds = np.array([0.25, *(shaper.brake(CENTRE, PERIOD_S).linear[0] for _ in range(8))])
    assert speeds[-1] == 0.0
    assert (np.diff(speeds) <= 1e-12).all()
    assert speeds[1] > 0.22
    assert shaper.still


def test_braking_in_the_middle_of_accelerating_ends_in_time_too():
    shaper = CommandShaper(WIDE, 0.08)
    run(shaper, ahead(0.25), 6)
    for _ in range(8):
        assert np.linalg.norm(shaper.brake(CENTRE, PERIOD_S).linear) <= WIDE.linear_speed_m_s
    assert shaper.still


def test_a_halt_is_at_once_and_motion_begins_anew():
    shaper = CommandShaper(WIDE, 0.08)
    run(shaper, ahead(0.25), 40)
    shaper.halt()
    assert shaper.still
    assert run(shaper, ahead(0.25), 1)[0, 0] <= WIDE.linear_jerk_m_s3 * PERIOD_S**2 * (1 + 1e-9)


def test_it_begins_with_the_motion_that_the_arm_has():
    shaper = CommandShaper(WIDE, 0.08)
    shaper.seed(ahead(0.1))
    first = run(shaper, ahead(0.2), 1)[0, 0]
    assert 0.1 < first <= 0.1 + WIDE.linear_jerk_m_s3 * PERIOD_S**2 * (1 + 1e-9)
    shaper.seed(ahead(9.0))
    assert shaper.twist.linear[0] == pytest.approx(WIDE.linear_speed_m_s)


@pytest.mark.parametrize("value", [-0.01, 0.2, float("nan")])
def test_braking_cannot_take_long(value):
    with pytest.raises(ConfigError, match="brake_time_s"):
        CommandShaper(LIMITS, value)
