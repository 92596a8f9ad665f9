"""Limits that can't be turned off, and targets that are slowed towards the walls of the workspace."""

from dataclasses import replace

import numpy as np
import pytest

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
    linear_jerk_m_s3=40.0,
    angular_jerk_rad_s3=120.0,
    gripper_closed_m=0.0,
    gripper_open_m=0.08,
    gripper_rate_hz=2.0,
)
CENTRE = np.array((0.0, 0.0, 0.6))


def limit(linear=(0, 0, 0), angular=(0, 0, 0), position=CENTRE):
    return LIMITS.limit_target(Twist(np.array(linear, float), np.array(angular, float)), position)


def test_small_commands_pass_unchanged():
    twist, reasons = limit(linear=(0.02, -0.03, 0.01), angular=(0.05, 0.0, 0.1))
    np.testing.assert_array_equal(twist.linear, (0.02, -0.03, 0.01))
    np.testing.assert_array_equal(twist.angular, (0.05, 0.0, 0.1))
    assert reasons == ()


def test_speed_keeps_its_direction():
    twist, reasons = limit(linear=(3.0, 4.0, 0.0), angular=(0.0, 8.0, 0.0))
    np.testing.assert_allclose(twist.linear, (0.15, 0.2, 0.0))
    np.testing.assert_allclose(twist.angular, (0.0, 0.8, 0.0))
    assert reasons == ("linear speed limited to 0.25", "angular speed limited to 0.8")


def test_a_wall_takes_only_the_part_that_leads_to_it():
    twist, reasons = limit(linear=(0.1, 0.1, 0.0), position=np.array((0.4, 0.0, 0.6)))
    np.testing.assert_allclose(twist.linear, (0.0, 0.1, 0.0))
    assert reasons == ("workspace limit in x",)


def test_towards_a_wall_half_of_the_acceleration_is_enough_to_stop():
    room = 0.01
    twist, _ = limit(linear=(0.25, 0.0, 0.0), position=np.array((0.4 - room, 0.0, 0.6)))
    assert 0.1 < twist.linear[0] <= np.sqrt(2 * room * LIMITS.linear_acceleration_m_s2 / 2)


def test_from_outside_the_way_back_is_free():
    outside = np.array((0.5, 0.0, 0.6))
    assert limit(linear=(-0.1, 0.0, 0.0), position=outside)[0].linear[0] == -0.1
    assert limit(linear=(0.1, 0.0, 0.0), position=outside)[0].linear[0] == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"linear_speed_m_s": float("inf")},
        {"linear_speed_m_s": 0.0},
        {"angular_acceleration_rad_s2": float("nan")},
        {"linear_jerk_m_s3": float("inf")},
        {"angular_jerk_rad_s3": -1.0},
        {"workspace_low_m": (0.5, -0.3, 0.45)},
        {"workspace_high_m": (0.4, float("inf"), 0.8)},
        {"gripper_open_m": -0.01},
        {"gripper_rate_hz": 0.0},
    ],
)
def test_limits_cannot_be_turned_off(change):
    with pytest.raises(ConfigError):
        replace(LIMITS, **change)
