"""The simulator as an arm's driver with two cameras: what it says, what moves it, and what it refuses."""

import time

import numpy as np
import pytest

pytest.importorskip("pybullet")

from lifecycle_msgs.msg import Transition

from deer_policies.errors import SimulatorError
from deer_ros import graph
from deer_ros.conversions import image_to_rgb
from deer_ros.quality import LATCHED
from tests.ros.node_rig import wait
from tests.ros.simulator_rig import REAL_TIME, SimulatorRig, Topic, ages, stamp_s

PERIOD_S = 1 / 30


@pytest.fixture(scope="module")
def rig(interface_packages):
    # A busy machine is allowed three times what Servo allows.
    made = SimulatorRig(**REAL_TIME, publish_tf=True, command_timeout_s=0.3)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(rig):
    rig.reset()


def matrix(transform):
    """(4, 4) of a transform message."""
    x, y, z, w = (getattr(transform.rotation, axis) for axis in "xyzw")
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = [getattr(transform.translation, axis) for axis in "xyz"]
    return pose


def seen(camera_from_world, info, point):
    """Column and row of a point of the world by camera info and tf."""
    on_lens = info.p.reshape(3, 4) @ camera_from_world @ np.append(point, 1.0)
    return on_lens[:2] / on_lens[2]


def test_steps_keep_to_the_clock(rig):
    received = rig.joints.next(45)
    stamps = np.array([stamp_s(message) for _, message in received])
    np.testing.assert_allclose(stamps - stamps[0], PERIOD_S * np.arange(45), atol=2e-3)
    assert abs(received[-1][0] - stamps[-1]) < 0.5


def test_images_and_joints_of_a_frame_have_one_stamp(rig):
    rig.static.next(5)
    stamps = {stamp_s(message) for _, message in rig.joints.received}
    for topic in (rig.static, rig.gripper, rig.static_info, rig.gripper_info):
        assert stamp_s(topic.last) in stamps


def test_physics_goes_on_where_drawing_is_slow(rig, monkeypatch):
    """Each picture takes 0.15 s more; steps stay at 30 Hz, and the health tells of the pictures that were left out."""
    environment = rig.node._environment
    look = environment.look

    def slow():
        time.sleep(0.15)
        return look()

    before = rig.node._health().values
    monkeypatch.setattr(environment, "look", slow)
    began_s = time.monotonic()
    time.sleep(2.0)
    after, took_s = rig.node._health().values, time.monotonic() - began_s
    monkeypatch.undo()
    made, drawn, skipped, lost = (
        after[name] - before[name]
        for name in ("control steps", "pictures", "steps without a picture", "periods without a step")
    )
    assert made + lost == pytest.approx(30 * took_s, abs=10)
    assert made > 40
    assert 4 <= drawn <= 15
    # The counts are read in the middle of a tick, which may make several steps.
    assert skipped == pytest.approx(made - drawn, abs=8)


def test_joint_states_have_names_and_velocities(rig):
    rig.stream(0.5, x=0.1)
    before, after = (message for _, message in rig.joints.next(2))
    rig.twist()
    assert list(after.name) == [
        *(f"panda_joint{index}" for index in range(1, 8)), "panda_finger_joint1", "panda_finger_joint2"
    ]  # fmt: skip
    moved = np.subtract(after.position, before.position) / PERIOD_S
    np.testing.assert_allclose(after.velocity, moved, atol=1e-6)
    assert np.abs(moved[:7]).max() > 0.02
    rig.settle()


def test_a_twist_moves_the_tool_at_its_speed_and_halts_when_it_is_stale(rig):
    rig.settle()
    start, _ = rig.tool()
    velocity = rig.speed_on(x=0.1, z=0.05)
    sent_s = time.time()
    np.testing.assert_allclose(velocity[:3], (0.1, 0.0, 0.05), atol=0.012)
    wait(lambda: stamp_s(rig.joints.last) > sent_s + 0.3 + 0.3)
    halted = [message for _, message in rig.joints.next(10)]
    assert all(np.abs(message.velocity).max() < 0.02 for message in halted)
    assert 0.05 < rig.tool()[0][0] - start[0] < 0.17


def test_a_turn_is_in_radians_a_second_about_the_axes_of_the_base(rig):
    rig.settle()
    start, _ = rig.tool()
    assert rig.speed_on(turn=0.3)[3] == pytest.approx(0.3, abs=0.04)
    rig.settle()
    np.testing.assert_allclose(rig.tool()[0], start, atol=0.006)


@pytest.mark.parametrize(
    ("twist", "reason"),
    [
        ({"frame": "world"}, "frame 'world' is refused"),
        ({"frame": ""}, "frame '' is refused"),
        ({"age_s": 0.5}, "are stale"),
        ({"x": float("nan")}, "must be three finite values"),
    ],
)
def test_twists_that_servo_would_not_take_are_refused_and_told(rig, twist, reason):
    before = rig.settle()
    rig.twist(**{"x": 0.3, **twist})
    wait(lambda: reason in rig.node._health().trouble, 2.0)
    rig.joints.next(5)
    np.testing.assert_allclose(rig.joints.last.position, before, atol=1e-4)


def test_the_gripper_goes_to_the_opening_that_is_asked_for(rig):
    from std_msgs.msg import Float64

    for opening in (0.03, 0.08, 0.0):
        rig.openings.publish(Float64(data=opening))
        wait(lambda opening=opening: abs(sum(rig.joints.last.position[7:]) - opening) < 0.002)
    rig.openings.publish(Float64(data=float("nan")))
    rig.joints.next(5)
    assert abs(sum(rig.joints.last.position[7:])) < 0.002


def middle_of(image, colour):
    """Median column and row of the pixels in which the channels of `colour` are bright and the others dark."""
    bright = np.array([name in colour for name in ("red", "green", "blue")])
    pixels = image_to_rgb(image).astype(int)
    rows, columns = np.nonzero((pixels[:, :, bright].min(axis=2) > 100) & (pixels[:, :, ~bright].max(axis=2) < 40))
    assert len(rows) > 30
    return np.median(columns), np.median(rows)


def test_camera_info_and_tf_tell_where_things_are_seen(rig):
    """The red block is in the pictures where its place in the world, the frames and the lens put it."""
    from tf2_msgs.msg import TFMessage

    rig.reset(2)
    fixed_frames = Topic(rig.client.node, TFMessage, graph.TF_STATIC, LATCHED)
    frames = Topic(rig.client.node, TFMessage, graph.TF, 10)
    wait(lambda: fixed_frames.received and frames.received)
    rig.static.next(3)
    fixed = {item.child_frame_id: item for item in fixed_frames.last.transforms}
    assert {name: item.header.frame_id for name, item in fixed.items()} == {
        "panda_link0": "world",
        "camera_static_optical_frame": "world",
        "camera_gripper_optical_frame": "panda_hand_tcp",
    }
    (tool,) = frames.last.transforms
    assert (tool.header.frame_id, tool.child_frame_id) == ("panda_link0", "panda_hand_tcp")
    assert stamp_s(tool) in {stamp_s(message) for _, message in rig.joints.received}

    block = rig.node._now.state.blocks["red"].position
    static = matrix(fixed["camera_static_optical_frame"].transform)
    found = seen(np.linalg.inv(static), rig.static_info.last, block)
    np.testing.assert_allclose(found, middle_of(rig.static.last, ("red",)), atol=2.5)
    base, hand = (matrix(fixed[f"{name}"].transform) for name in ("panda_link0", "camera_gripper_optical_frame"))
    on_hand = base @ matrix(tool.transform) @ hand
    found = seen(np.linalg.inv(on_hand), rig.gripper_info.last, block)
    np.testing.assert_allclose(found, middle_of(rig.gripper.last, ("red",)), atol=2.5)
    assert static[2, 2] < -0.3, "z points out of the lens (REP 103), down at the table"
    assert on_hand[2, 2] < -0.9


def test_camera_info_is_that_of_an_ideal_lens(rig):
    info = rig.static_info.next()[0][1]
    assert (info.width, info.height, info.distortion_model) == (200, 200, "plumb_bob")
    assert info.header.frame_id == rig.static.last.header.frame_id == "camera_static_optical_frame"
    np.testing.assert_array_equal(info.d, np.zeros(5))
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3].ravel(), info.k)
    np.testing.assert_array_equal(info.r, np.eye(3).ravel())
    assert rig.gripper_info.last.width == 84


def test_inactive_the_driver_is_silent_and_the_arm_holds(rig):
    rig.stream(0.3, x=0.02)
    rig.change(Transition.TRANSITION_DEACTIVATE)
    time.sleep(0.1)
    held, counts = list(rig.joints.last.position), [len(rig.joints.received), len(rig.static.received)]
    rig.stream(0.5, x=0.5)
    assert [len(rig.joints.received), len(rig.static.received)] == counts
    with pytest.raises(SimulatorError, match="not active"):
        rig.client.reset(0)
    rig.change(Transition.TRANSITION_ACTIVATE)
    rig.joints.next(10)
    # What it lags behind its last command is all that it moves.
    np.testing.assert_allclose(rig.settle(), held, atol=0.015)


def test_cleaned_up_it_can_be_configured_again(rig):
    rig.change(
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    )
    assert max(ages(rig.static.next(3))) < 1.0
