"""Complete sets only, newest first, repeats marked."""

import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.frame_sync import FrameSync

CHANNELS = ("static", "gripper", "joints")


def feed(sync, stamp_s, now_s, order=("joints", "gripper", "static")):
    return [given for channel in order if (given := sync.add(channel, stamp_s, f"{channel}{stamp_s}", now_s))]


def test_a_set_comes_with_its_last_part():
    sync = FrameSync(CHANNELS)
    assert sync.add("static", 1.0, "s", 10.0) is None
    assert sync.add("joints", 1.0, "j", 10.1) is None
    frames = sync.add("gripper", 1.0, "g", 10.2)
    assert frames.values == {"static": "s", "gripper": "g", "joints": "j"}
    assert frames.stamp_s == 1.0
    assert frames.received_s == 10.0
    assert not frames.repeated


def test_parts_of_different_instants_are_never_mixed():
    sync = FrameSync(CHANNELS)
    sync.add("static", 1.0, "s1", 0.0)
    sync.add("gripper", 1.0, "g1", 0.0)
    assert sync.add("joints", 2.0, "j2", 0.0) is None
    assert sync.add("static", 2.0, "s2", 0.0) is None
    assert sync.add("gripper", 2.0, "g2", 0.0).values == {"static": "s2", "gripper": "g2", "joints": "j2"}


def test_what_is_older_than_the_last_set_is_not_given_out():
    sync = FrameSync(CHANNELS)
    sync.add("joints", 1.0, "j1", 0.0)
    sync.add("gripper", 1.0, "g1", 0.0)
    assert len(feed(sync, 1.1, 0.0)) == 1
    assert sync.add("static", 1.0, "s1", 0.0) is None


def test_a_repetition_is_given_out_once_and_marked():
    sync = FrameSync(CHANNELS)
    feed(sync, 1.0, 0.0)
    repeated = feed(sync, 1.0, 0.2)
    assert [frames.repeated for frames in repeated] == [True]
    assert repeated[0].received_s == 0.2


def test_a_source_that_starts_anew_is_followed():
    sync = FrameSync(CHANNELS)
    feed(sync, 100.0, 0.0)
    assert [frames.stamp_s for frames in feed(sync, 1.0, 0.1)] == [1.0]


def test_slop():
    sync = FrameSync(CHANNELS, slop_s=0.02)
    sync.add("joints", 1.00, "old", 0.0)
    sync.add("joints", 1.012, "near", 0.0)
    sync.add("gripper", 1.03, "g", 0.0)
    assert sync.add("static", 1.015, "s", 0.0).values["joints"] == "near"
    assert FrameSync(("a", "b"), 0.0).add("a", 1.0, 1, 0.0) is None


@pytest.mark.parametrize("slop_s", [-0.1, float("nan")])
def test_refuses_bad_slop(slop_s):
    with pytest.raises(ConfigError, match="slop_s"):
        FrameSync(CHANNELS, slop_s)
