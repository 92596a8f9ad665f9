"""Joint trajectories: the tool moves as the twist says, joints stay within limits, and a blocked arm is noticed."""

from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist
from deer_ros.control.joint_motion import JointLimits, JointMotion
from deer_ros.control.kinematics import ArmGeometry

JOINTS = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
LIMITS = JointLimits(
    low_rad=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    high_rad=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    speed_rad_s=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    tracking_error_rad=0.1,
)
ARM = ArmGeometry()
PERIOD_S = 0.01


def make_motion(joints=JOINTS, limits=LIMITS):
    motion = JointMotion(ARM, limits)
    motion.seed(joints)
    return motion


def test_the_jacobian_is_the_derivative_of_the_pose():
    small = 1e-6
    jacobian = ARM.jacobian(JOINTS)
    for joint in range(7):
        moved = JOINTS + small * np.eye(7)[joint]
        numeric = (ARM.tcp_pose(moved)[0] - ARM.tcp_pose(JOINTS)[0]) / small
        np.testing.assert_allclose(jacobian[:3, joint], numeric, atol=1e-5)


def test_turning_one_joint_turns_the_tool_about_its_axis():
    twist = ARM.tcp_twist(JOINTS, np.array((0.4, 0, 0, 0, 0, 0, 0)))
    np.testing.assert_allclose(twist.angular, (0.0, 0.0, 0.4), atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_the_tool_moves_as_the_twist_says(axis):
    motion = make_motion()
    wanted = 0.1 * np.eye(3)[axis]
    start, euler = ARM.tcp_pose(JOINTS)
    for _ in range(50):
        motion.advance(Twist(wanted, np.zeros(3)), PERIOD_S)
    position, turned = ARM.tcp_pose(motion.joints_rad)
    np.testing.assert_allclose(position - start, wanted * 0.5, atol=2e-4)
    np.testing.assert_allclose(turned, euler, atol=2e-3)


def test_joint_speeds_stay_within_their_limits_and_keep_the_direction():
    motion = make_motion(limits=replace(LIMITS, speed_rad_s=(0.1,) * 7))
    wanted = np.array((0.5, 0.3, 0.0))
    motion.advance(Twist(wanted, np.zeros(3)), PERIOD_S)
    assert np.abs(motion.speeds_rad_s).max() == pytest.approx(0.1)
    moved = ARM.tcp_twist(JOINTS, motion.speeds_rad_s).linear
    np.testing.assert_allclose(moved / np.linalg.norm(moved), wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize("direction", [(0, 0, 1.0), (0, 0, -1.0), (1.0, 1.0, 0), (-1.0, -1.0, 0)])
def test_no_joint_passes_its_limit_and_singularities_do_not_explode(direction):
    """Ten seconds straight on, far beyond what the arm can reach."""
    motion = make_motion()
    for _ in range(1000):
        motion.advance(Twist(np.array(direction), np.zeros(3)), PERIOD_S)
        assert (motion.joints_rad >= np.array(LIMITS.low_rad) - 1e-9).all()
        assert (motion.joints_rad <= np.array(LIMITS.high_rad) + 1e-9).all()
        assert (np.abs(motion.speeds_rad_s) <= np.array(LIMITS.speed_rad_s) + 1e-9).all()


def test_an_arm_that_does_not_follow_is_noticed():
    motion = make_motion()
    motion.check_tracking(JOINTS)
    for _ in range(100):
        motion.advance(Twist(np.array((0.0, 0.0, 0.2)), np.zeros(3)), PERIOD_S)
    with pytest.raises(ConfigError, match="does not follow"):
        motion.check_tracking(JOINTS)


@pytest.mark.parametrize(
    "change", [{"speed_rad_s": (0.0,) * 7}, {"low_rad": (3.0,) * 7}, {"tracking_error_rad": float("inf")}]
)
def test_limits_cannot_be_turned_off(change):
    with pytest.raises(ConfigError):
        replace(LIMITS, **change)
