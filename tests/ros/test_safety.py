"""Nothing leaves the limits, and what is within them passes unchanged."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist
from deer_ros.control.safety import SafetyLimits

LIMITS = SafetyLimits(
    workspace_low_m=(-0.4, -0.3, 0.45),
    workspace_high_m=(0.4, 0.2, 0.8),
    linear_speed_m_s=0.25,
    angular_speed_rad_s=0.8,
    linear_acceleration_m_s2=2.0,
    angular_acceleration_rad_s2=6.0,
    gripper_closed_m=0.0,
    gripper_open_m=0.08,
)
CENTRE = np.array((0.0, 0.0, 0.6))
PERIOD_S = 1.0 / 30.0
STILL = Twist.zero()

vectors = st.lists(st.floats(-5.0, 5.0), min_size=3, max_size=3).map(np.array)
twists = st.builds(Twist, vectors, vectors)
inside = st.tuples(st.floats(-0.4, 0.4), st.floats(-0.3, 0.2), st.floats(0.45, 0.8)).map(np.array)


def limit(linear=(0, 0, 0), angular=(0, 0, 0), previous=STILL, position=CENTRE):
    return LIMITS.limit_twist(Twist(np.array(linear, float), np.array(angular, float)), previous, position, PERIOD_S)


def test_small_commands_pass_unchanged():
    twist, reasons = limit(linear=(0.02, -0.03, 0.01), angular=(0.05, 0.0, 0.1))
    np.testing.assert_array_equal(twist.linear, (0.02, -0.03, 0.01))
    np.testing.assert_array_equal(twist.angular, (0.05, 0.0, 0.1))
    assert reasons == ()


def test_speed_keeps_its_direction():
    moving = Twist(np.array((0.15, 0.2, 0.0)), np.zeros(3))
    twist, reasons = limit(linear=(3.0, 4.0, 0.0), previous=moving)
    np.testing.assert_allclose(twist.linear, (0.15, 0.2, 0.0))
    assert any("linear speed" in reason for reason in reasons)


def test_acceleration_is_limited_but_standing_still_is_not_delayed():
    twist, reasons = limit(linear=(0.2, 0.0, 0.0))
    np.testing.assert_allclose(twist.linear, (2.0 * PERIOD_S, 0.0, 0.0))
    assert reasons == ("linear acceleration limited",)
    moving = Twist(np.array((0.2, 0.0, 0.0)), np.array((0.5, 0.0, 0.0)))
    twist, reasons = limit(previous=moving)
    assert not twist.linear.any()
    assert not twist.angular.any()
    assert reasons == ()


def test_workspace_takes_only_the_part_that_leads_out():
    moving = Twist(np.array((0.1, 0.1, 0.0)), np.zeros(3))
    twist, reasons = limit(linear=(0.1, 0.1, 0.0), previous=moving, position=np.array((0.4, 0.0, 0.6)))
    np.testing.assert_allclose(twist.linear, (0.0, 0.1, 0.0))
    assert reasons == ("workspace limit in x",)


def test_from_outside_the_way_back_is_free():
    outside = np.array((0.5, 0.0, 0.6))
    back = Twist(np.array((-0.1, 0.0, 0.0)), np.zeros(3))
    assert limit(linear=(-0.1, 0.0, 0.0), previous=back, position=outside)[0].linear[0] == -0.1
    assert limit(linear=(0.1, 0.0, 0.0), position=outside)[0].linear[0] == 0.0


@given(twists, twists, inside)
def test_nothing_leaves_the_limits(asked, previous, position):
    """Whatever came before, the speed is within its limit and the box is not left within one period."""
    within_speed = LIMITS.limit_twist(previous, STILL, position, PERIOD_S)[0]
    twist, _ = LIMITS.limit_twist(asked, within_speed, position, PERIOD_S)
    assert np.linalg.norm(twist.linear) <= LIMITS.linear_speed_m_s * (1 + 1e-9)
    assert np.linalg.norm(twist.angular) <= LIMITS.angular_speed_rad_s * (1 + 1e-9)
    after = position + twist.linear * PERIOD_S
    assert (after >= np.array(LIMITS.workspace_low_m) - 1e-9).all()
    assert (after <= np.array(LIMITS.workspace_high_m) + 1e-9).all()


@given(twists, inside)
def test_a_limited_command_is_within_the_limits(asked, position):
    """Limiting twice changes nothing more."""
    once, _ = LIMITS.limit_twist(asked, STILL, position, PERIOD_S)
    twice, _ = LIMITS.limit_twist(once, STILL, position, PERIOD_S)
    np.testing.assert_allclose(twice.linear, once.linear, atol=1e-12)
    np.testing.assert_allclose(twice.angular, once.angular, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"linear_speed_m_s": float("inf")},
        {"linear_speed_m_s": 0.0},
        {"angular_acceleration_rad_s2": float("nan")},
        {"workspace_low_m": (0.5, -0.3, 0.45)},
        {"workspace_high_m": (0.4, float("inf"), 0.8)},
        {"gripper_open_m": -0.01},
    ],
)
def test_limits_cannot_be_turned_off(change):
    with pytest.raises(ConfigError):
        replace(LIMITS, **change)
