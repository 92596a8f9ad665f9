"""A policy node whose cameras send other sizes than the policy takes."""

import numpy as np
import pytest
import rclpy

from deer_policies.errors import ConfigError
from deer_ros import network
from deer_ros.bringup import free_domain_id
from deer_ros.errors import StackError
from deer_ros.nodes.policy_node import PolicyNode
from deer_ros.reports import Outcome
from tests.ros.policy_rig import GRIPPER, Rig


@pytest.fixture
def make_rig():
    rigs = []

    def make(**settings):
        rigs.append(Rig(**settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def test_the_policy_is_shown_the_middle_scaled_down(make_rig):
    rig = make_rig(camera_static_size="[12, 16]")
    rig.bring_up()
    sent = np.zeros((12, 16, 3), np.uint8)
    sent[:, :2] = sent[:, 14:] = 255
    sent[:, 2:14] = 15
    assert rig.follow(static=sent).outcome is Outcome.TIMEOUT
    for observation, _ in rig.policy.seen:
        np.testing.assert_array_equal(observation.rgb_static, np.full((6, 6, 3), 15, np.uint8))
        np.testing.assert_array_equal(observation.rgb_gripper, GRIPPER)


def test_any_other_size_is_dropped_with_the_reason(make_rig):
    rig = make_rig(camera_static_size="[12, 16]")
    rig.bring_up()
    result = rig.follow()
    assert result.outcome is Outcome.FAILED
    assert "(6, 6, 3); it must be (12, 16, 3)" in result.reason


def test_images_that_a_sockets_buffer_cannot_hold_are_warned_of(make_rig, monkeypatch, tmp_path, capfd):
    (tmp_path / "rmem_max").write_text("4096")
    monkeypatch.setattr(network, "RECEIVE_LIMIT", tmp_path / "rmem_max")
    monkeypatch.setenv(network.CONFINED, "1")
    make_rig(camera_static_size="[48, 64]").bring_up()
    needed = 3 * (48 * 64 + GRIPPER.shape[0] * GRIPPER.shape[1])
    assert f"net.core.rmem_max={needed}" in capfd.readouterr().err


def test_a_camera_below_the_policys_size_is_refused_when_configured(make_rig):
    with pytest.raises(StackError, match="refused"):
        make_rig(camera_gripper_size="[3, 8]").bring_up()


@pytest.mark.parametrize("size", ["[480]", "[-1, 640]", "[480, 70000]", "[480.0, 640.0]", "big"])
def test_what_is_no_size_is_refused(size):
    rclpy.init(args=["--ros-args", "-p", f"camera_static_size:={size}"], domain_id=free_domain_id())
    try:
        with pytest.raises(ConfigError, match="camera_static_size"):
            PolicyNode()
    finally:
        rclpy.try_shutdown()
