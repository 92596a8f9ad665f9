"""The arm's kinematics against the simulator and against themselves."""

import numpy as np
import pytest

from deer_policies.errors import SimulatorError
from deer_sim.playtable import kinematics
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.robot import INITIAL_JOINTS


def test_forward_kinematics_are_the_simulator_s():
    rng = np.random.default_rng(0)
    with PlayTable("D", cameras=False) as table:
        robot_obs = table.reset(seed=0).robot_obs
        for _ in range(5):
            robot_obs[7:14] = np.array(INITIAL_JOINTS) + rng.uniform(-0.2, 0.2, size=7)
            table._robot.reset(robot_obs[7:14], 0.08, 1.0)
            found = table._robot.observation()
            place, euler = kinematics.forward(robot_obs[7:14])
            assert np.allclose(found[:3], place, atol=1e-6)
            assert np.allclose(kinematics.matrix_from_euler(found[3:6]), kinematics.matrix_from_euler(euler), atol=1e-6)


def test_inverse_undoes_forward():
    rng = np.random.default_rng(1)
    for _ in range(20):
        joints = np.array(INITIAL_JOINTS) + rng.uniform(-0.3, 0.3, size=7)
        place, euler = kinematics.forward(joints)
        found, found_euler = kinematics.forward(kinematics.inverse(place, euler, np.array(INITIAL_JOINTS)))
        assert np.allclose(found, place, atol=1e-5)
        assert np.allclose(kinematics.matrix_from_euler(found_euler), kinematics.matrix_from_euler(euler), atol=1e-5)


def test_what_is_out_of_reach_is_refused():
    with pytest.raises(SimulatorError, match="can't reach"):
        kinematics.inverse(np.array([2.0, 0.0, 0.5]), np.array([np.pi, 0, 0]), np.array(INITIAL_JOINTS))
