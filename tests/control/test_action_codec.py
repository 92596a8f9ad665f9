"""The action codec is exact both ways, and its angular velocity is the one of physics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist, action_from_twist, twist_from_action
from deer_sim.playtable.kinematics import matrix_from_euler

unit = st.floats(-1.0, 1.0, width=32)
actions = st.lists(unit, min_size=6, max_size=6).map(np.array)
eulers = st.tuples(st.floats(-3.2, 3.2), st.floats(-1.4, 1.4), st.floats(-3.2, 3.2)).map(np.array)


@given(actions, eulers, st.sampled_from((5.0, 30.0, 100.0)))
def test_round_trip(action, euler, rate_hz):
    twist = twist_from_action(action, euler, rate_hz)
    np.testing.assert_allclose(action_from_twist(twist, euler, rate_hz), action, atol=1e-12)


def test_full_scale_is_calvins_speed():
    twist = twist_from_action(np.array((1, 0, 0, 0, 0, 1)), np.zeros(3), 30.0)
    np.testing.assert_allclose(twist.linear, (0.6, 0.0, 0.0))
    np.testing.assert_allclose(twist.angular, (0.0, 0.0, 1.5))


@given(actions, eulers)
def test_angular_velocity_is_the_derivative_of_the_rotation(action, euler):
    """omega of R' R^T = [omega]x, by finite differences."""
    twist = twist_from_action(action, euler, 30.0)
    step = 1e-6
    rate = action[3:] * 0.05 * 30.0
    before, after = matrix_from_euler(euler - rate * step), matrix_from_euler(euler + rate * step)
    skew = (after - before) / (2 * step) @ matrix_from_euler(euler).T
    np.testing.assert_allclose(twist.angular, (skew[2, 1], skew[0, 2], skew[1, 0]), atol=1e-6)


def test_refuses_the_euler_singularity():
    with pytest.raises(ConfigError, match="pitch"):
        twist_from_action(np.ones(6), np.array((0.0, np.pi / 2, 0.0)), 30.0)


@pytest.mark.parametrize("bad", [np.full(3, np.nan), np.zeros(2), np.array((0.0, np.inf, 0.0))])
def test_a_twist_is_finite(bad):
    with pytest.raises(ConfigError, match="three finite values"):
        Twist(bad, np.zeros(3))
