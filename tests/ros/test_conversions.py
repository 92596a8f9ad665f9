"""Messages to values and back, and clear words about messages that can't be read."""

import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image, JointState

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ExitReport
from deer_ros.conversions import (
    exit_report_from_message,
    exit_report_to_message,
    image_to_rgb,
    joint_positions,
    ns_to_stamp,
    rgb_to_image,
    stamp_to_ns,
    stamp_to_s,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def image(encoding, pixels, padding=0):
    rows = pixels.reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)))
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=padded.shape[1])
    message.data = array.array("B", padded.tobytes())
    return message


def test_rgb_round_trip():
    message = rgb_to_image(PIXELS, ns_to_stamp(1_500_000_000), "camera")
    assert (message.encoding, message.header.frame_id, message.header.stamp.sec) == ("rgb8", "camera", 1)
    np.testing.assert_array_equal(image_to_rgb(message), PIXELS)


def test_an_image_that_is_not_contiguous_is_sent_right():
    np.testing.assert_array_equal(image_to_rgb(rgb_to_image(PIXELS[:, ::-1], ns_to_stamp(0), "")), PIXELS[:, ::-1])


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("rgb8", PIXELS),
        ("bgr8", PIXELS[:, :, ::-1]),
        ("rgba8", np.dstack((PIXELS, PIXELS[:, :, 0]))),
        ("bgra8", np.dstack((PIXELS[:, :, ::-1], PIXELS[:, :, 0]))),
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_encodings(encoding, sent, padding):
    np.testing.assert_array_equal(image_to_rgb(image(encoding, sent, padding)), PIXELS)


def test_mono_becomes_grey():
    grey = image_to_rgb(image("mono8", PIXELS[:, :, :1]))
    np.testing.assert_array_equal(grey, np.repeat(PIXELS[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("encoding", ["32FC1", "yuv422", "", "mono16"])
def test_unknown_encodings_are_named(encoding):
    with pytest.raises(ConfigError, match=r"can't be read; set the camera to one of rgb8"):
        image_to_rgb(image(encoding, PIXELS))


@pytest.mark.parametrize("change", [{"height": 4}, {"width": 8}, {"step": 20}, {"height": 0}])
def test_sizes_that_do_not_fit_are_refused(change):
    message = image("rgb8", PIXELS)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ConfigError, match="bytes"):
        image_to_rgb(message)


def test_only_uint8_is_sent():
    with pytest.raises(ConfigError, match="uint8"):
        rgb_to_image(PIXELS.astype(np.float32), ns_to_stamp(0), "")


def test_joints_come_by_name():
    message = JointState(name=["b", "other", "a"], position=[2.0, 9.0, 1.0])
    np.testing.assert_array_equal(joint_positions(message, ("a", "b")), (1.0, 2.0))


def test_missing_joints_are_named():
    with pytest.raises(ConfigError, match="lacks c and has a, b"):
        joint_positions(JointState(name=["a", "b"], position=[1.0, 2.0]), ("a", "c"))


def test_joints_without_positions_are_missing():
    with pytest.raises(ConfigError, match="lacks b"):
        joint_positions(JointState(name=["a", "b"], position=[1.0]), ("a", "b"))


def test_joints_that_are_not_finite_are_refused():
    with pytest.raises(ConfigError, match="not finite"):
        joint_positions(JointState(name=["a"], position=[float("nan")]), ("a",))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(nanoseconds):
    assert stamp_to_ns(ns_to_stamp(nanoseconds)) == nanoseconds
    assert stamp_to_s(ns_to_stamp(nanoseconds)) == pytest.approx(nanoseconds * 1e-9)


def test_exit_report_round_trip():
    report = ExitReport(1, 3, (0.5, 0.25), (0.125, 0.5, 1e8), 1.5, 2.5, 3.0, 4.0, 12.5)
    message = exit_report_to_message(report)
    assert message.exit_count == 3
    assert exit_report_from_message(message) == report
