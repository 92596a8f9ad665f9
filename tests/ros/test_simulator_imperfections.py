"""Each imperfection of the simulated arm, set while it runs, shows in what is published or in how it moves."""

import numpy as np
import pytest

pytest.importorskip("pybullet")

from deer_policies.errors import ConfigError
from deer_ros.control.imperfections import Imperfections
from deer_ros.conversions import image_to_rgb
from tests.ros.simulator_rig import REAL_TIME, SimulatorRig, ages, stamp_s

PERIOD_S = 1 / 30


@pytest.fixture(scope="module")
def module_rig():
    made = SimulatorRig(**REAL_TIME, joint_latency_s=0.25)
    yield made
    made.close()


@pytest.fixture
def rig(module_rig):
    """Without imperfections, at the start of an episode, the arm at rest."""
    none = vars(Imperfections())
    assert module_rig.set(**none) == ""
    module_rig.reset()
    module_rig.settle()
    return module_rig


def test_one_from_the_start_is_there(module_rig):
    assert min(ages(module_rig.joints.next(5))) >= 0.25


def test_without_any_everything_comes_at_once(rig):
    assert np.median(ages(rig.joints.next(15))) < 0.1
    assert np.median(ages(rig.static.next(15))) < 0.2


@pytest.mark.parametrize("topics", ["camera", "joint"])
def test_latency_is_between_stamp_and_arrival(rig, topics):
    assert rig.set(**{f"{topics}_latency_s": 0.4}) == ""
    for topic in [rig.joints] if topics == "joint" else [rig.static, rig.gripper, rig.static_info, rig.gripper_info]:
        topic.next(3)
        late = ages(topic.next(10))
        assert min(late) >= 0.4
        assert np.median(late) < 0.4 + 0.3


@pytest.mark.parametrize("topics", ["camera", "joint"])
def test_jitter_makes_messages_late_but_keeps_their_order(rig, topics):
    """What is held up holds up what comes behind it, so that most are late by more than half of the most."""
    topic = rig.static if topics == "camera" else rig.joints
    assert rig.set(**{f"{topics}_jitter_s": 0.8}) == ""
    topic.next(20)
    received = topic.next(40)
    late = ages(received)
    assert 0.4 < np.median(late) < 0.8 + 0.1
    stamps = [stamp_s(message) for _, message in received]
    assert stamps == sorted(stamps)


def test_dropout_loses_its_share(rig):
    assert rig.set(camera_dropout=0.5, joint_dropout=1.0) == ""
    rig.static_info.next(2)
    joints = len(rig.joints.received)
    frames = rig.node._pictures
    received = len(rig.static.next(20))
    drawn = rig.node._pictures - frames
    assert 0.25 < received / drawn < 0.75
    assert len(rig.joints.received) == joints


def test_a_frozen_camera_sends_one_picture_with_new_stamps(rig):
    assert rig.set(camera_frozen=True) == ""
    frozen = rig.gripper.next(3)[-1][1]
    rig.stream(0.4, x=0.2)
    moved = rig.gripper.next(3)[-1][1]
    assert bytes(moved.data) == bytes(frozen.data)
    assert stamp_s(moved) > stamp_s(frozen) + 0.3
    assert rig.set(camera_frozen=False) == ""
    assert bytes(rig.gripper.next(3)[-1][1].data) != bytes(frozen.data)


def test_a_repeating_camera_sends_one_message_with_its_stamp(rig):
    assert rig.set(camera_repeats=True) == ""
    rig.static.next(3)
    repeated = [message for _, message in rig.static.next(5)]
    assert len({stamp_s(message) for message in repeated}) == 1
    assert rig.set(camera_repeats=False) == ""
    rig.static.next(3)
    assert len({stamp_s(message) for _, message in rig.static.next(5)}) == 5


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "32FC1"])
def test_images_come_in_another_encoding(rig, encoding):
    before = image_to_rgb(rig.static.next(2)[-1][1])
    assert rig.set(camera_encoding=encoding) == ""
    image = rig.static.next(4)[-1][1]
    assert image.encoding == encoding
    if encoding == "32FC1":
        with pytest.raises(ConfigError, match="32FC1"):
            image_to_rgb(image)
    else:
        expected = before if encoding == "bgr8" else np.repeat(before.mean(axis=2, keepdims=True), 3, axis=2)
        assert np.abs(image_to_rgb(image).astype(float) - expected).mean() < 8


def test_images_come_in_another_size(rig):
    assert rig.set(camera_scale=0.5) == ""
    image = rig.static.next(4)[-1][1]
    assert image_to_rgb(image).shape == (100, 100, 3)
    assert rig.static_info.last.width == 200


def test_the_clock_of_the_cameras_jumps(rig):
    assert rig.set(camera_stamp_offset_s=-100.0) == ""
    rig.static.next(3)
    assert min(ages(rig.static.next(3))) > 99.0
    assert max(ages(rig.joints.next(3))) < 1.0


def test_frozen_joint_states_tell_one_position(rig):
    assert rig.set(joint_states_frozen=True) == ""
    frozen = rig.joints.next(2)[-1][1]
    rig.stream(0.4, x=0.2)
    later = rig.joints.next(2)[-1][1]
    assert later.position == frozen.position
    assert stamp_s(later) > stamp_s(frozen) + 0.3
    assert rig.set(joint_states_frozen=False) == ""
    assert np.abs(np.subtract(rig.joints.next(2)[-1][1].position, frozen.position)).max() > 0.02


def test_positions_are_not_a_number(rig):
    assert rig.set(nan_joints=True) == ""
    message = rig.joints.next(2)[-1][1]
    assert np.isnan(message.position).all()
    assert len(message.position) == 9


def test_late_commands_are_stale_to_servo(rig):
    """By the system's clock a twist that comes 0.3 s after its stamp is refused, as MoveIt Servo does."""
    way, _ = rig.moved_after(command_latency_s=0.3)
    assert abs(way) < 0.003
    assert "stale" in rig.node._health().trouble


def test_lost_commands_do_not_move_the_arm(rig):
    way, _ = rig.moved_after(command_dropout=1.0)
    assert abs(way) < 0.003
    assert rig.node._health().values["messages lost on purpose"] > 10


def test_wrong_values_are_refused_and_change_nothing(rig):
    assert "out of range" in rig.set(camera_latency_s=-1.0)
    assert "must be one of rgb8" in rig.set(camera_encoding="jpeg")
    assert "read-only" in rig.set(mode="lockstep")
    assert rig.node._imperfections == Imperfections()
