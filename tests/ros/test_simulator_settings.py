"""Settings of the simulator node that can't work are refused before anything starts."""

import contextlib
import sys

import numpy as np
import pytest

pytest.importorskip("pybullet")

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from deer_policies.errors import ConfigError
from deer_ros.bringup import free_domain_id
from deer_ros.control.imperfections import Imperfections
from deer_ros.nodes.simulator_node import SimulatorNode
from deer_ros.nodes.transform_broadcast import quaternion
from tests.ros.node_rig import arguments
from tests.ros.simulator_rig import REAL_TIME, SimulatorRig


@contextlib.contextmanager
def simulator(**settings):
    """The node alone, which nobody talks to."""
    rclpy.init(args=arguments(settings), domain_id=free_domain_id())
    try:
        node = SimulatorNode()
        yield node
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"camera_latency_s": 0.1}, "camera_latency_s can't be had in lockstep"),
        ({"arm_interface": "joint_trajectory"}, "it must be twist; set mode to real_time"),
        ({"gripper_interface": "gripper_command"}, "it must be float64"),
        ({"clock": "system"}, "it must be simulated"),
        ({**REAL_TIME, "camera_dropout": 1.5}, "camera_dropout"),
        ({"arm_interface": "telepathy"}, "one of twist, joint_trajectory"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(settings, reason):
    with pytest.raises(ConfigError, match=reason), simulator(**settings):
        pass


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({"publish_tf": True}, "tf2_msgs"),
        ({"gripper_interface": "gripper_command"}, "control_msgs"),
        ({"gripper_interface": "parallel_gripper_command"}, "control_msgs"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, capfd, settings, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with simulator(**REAL_TIME, **settings) as node:
        assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert f"needs the ROS 2 package {package}" in capfd.readouterr().err


def test_quaternions_are_those_of_the_rotations():
    random = np.random.default_rng(0)
    for _ in range(20):
        turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
        turn *= np.sign(np.linalg.det(turn))
        *axis, w = quaternion(turn)
        axis = np.array(axis)
        for vector in np.eye(3):
            turned = vector + 2.0 * np.cross(axis, np.cross(axis, vector) + w * vector)
            np.testing.assert_allclose(turned, turn @ vector, atol=1e-9)


def test_late_commands_move_the_arm_later():
    """By simulated time stamps are not looked at, so that late commands still count."""
    rig = SimulatorRig(mode="real_time", clock="simulated")
    try:
        rig.settle()
        way, at_once_s = rig.moved_after()
        assert way == pytest.approx(0.115, abs=0.03)
        rig.settle()
        _, late_s = rig.moved_after(command_latency_s=0.3)
        assert 0.2 < late_s - at_once_s < 0.4
    finally:
        rig.close()


def test_lockstep_has_none():
    with simulator() as node:
        (result,) = node.set_parameters([Parameter("camera_dropout", value=0.1)])
        assert "camera_dropout can't be had in lockstep" in result.reason
        assert node.get_parameter("camera_dropout").value == 0.0
        assert node._imperfections == Imperfections()
