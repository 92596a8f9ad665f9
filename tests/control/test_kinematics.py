"""Forward kinematics against the simulator's own, and euler angles against their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_policies.errors import ConfigError
from deer_ros.control.kinematics import ArmGeometry, euler_from_rotation
from deer_sim.playtable.kinematics import matrix_from_euler

GEOMETRY = ArmGeometry()
CALVIN_START_JOINTS = (-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866)


def test_calvins_start_pose():
    """Joints and pose that CALVIN documents for the start of an episode."""
    position, euler = GEOMETRY.tcp_pose(np.array(CALVIN_START_JOINTS))
    np.testing.assert_allclose(position, (0.02586889, -0.2313129, 0.5712808), atol=1e-6)
    np.testing.assert_allclose(euler, (3.09045, -0.02909, 1.50014), atol=1e-5)


def test_agrees_with_pybullet(tmp_path):
    """Random joints within the limits, on the very URDF that PlayTable uses."""
    pybullet = pytest.importorskip("pybullet")
    from deer_sim.playtable import robot

    client = pybullet.connect(pybullet.DIRECT)
    try:
        body = pybullet.loadURDF(
            str(robot.write_urdf(tmp_path)), robot.BASE_POSITION, useFixedBase=True, physicsClientId=client
        )
        generator = np.random.default_rng(5)
        for _ in range(50):
            joints = generator.uniform(robot.LOWER_LIMITS, robot.UPPER_LIMITS)
            for index, angle in enumerate(joints):
                pybullet.resetJointState(body, index, angle, physicsClientId=client)
            state = pybullet.getLinkState(body, robot.TCP_LINK, computeForwardKinematics=True, physicsClientId=client)
            position, euler = GEOMETRY.tcp_pose(joints)
            np.testing.assert_allclose(position, state[4], atol=1e-6)
            expected = np.array(pybullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            np.testing.assert_allclose(matrix_from_euler(euler), expected, atol=1e-6)
            if abs(np.cos(euler[1])) > 0.01:
                difference = euler - np.array(pybullet.getEulerFromQuaternion(state[5]))
                np.testing.assert_allclose(np.sin(difference / 2), 0.0, atol=1e-5)
    finally:
        pybullet.disconnect(client)


angle = st.floats(-3.0, 3.0)


@given(angle, st.floats(-1.5, 1.5), angle)
def test_euler_round_trip(roll, pitch, yaw):
    euler = np.array((roll, pitch, yaw))
    np.testing.assert_allclose(euler_from_rotation(matrix_from_euler(euler)), euler, atol=1e-6)


@pytest.mark.parametrize("joints", [np.zeros(6), np.full(7, np.nan), np.array([0, 0, 0, np.inf, 0, 0, 0])])
def test_refuses_bad_joints(joints):
    with pytest.raises(ConfigError, match="7 finite values"):
        GEOMETRY.tcp_pose(joints)


def test_refuses_bad_geometry():
    with pytest.raises(ConfigError, match="finite"):
        ArmGeometry(base_position_m=(0.0, float("nan"), 0.0))
