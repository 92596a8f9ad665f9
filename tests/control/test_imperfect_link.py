"""Lines that deliver late, irregularly or not at all, and what is sent over them."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.imperfect_link import ImperfectLink, LinkQuality
from deer_ros.control.imperfections import ENCODINGS, Imperfections, encoded, scaled


def made(seed=0, **quality):
    link = ImperfectLink(seed)
    link.change(LinkQuality(**quality), 0.0)
    return link


def test_a_perfect_line_delivers_at_once():
    link = made()
    assert link.quality.perfect
    link.send("a", 1.0)
    assert link.due(1.0) == ["a"]
    assert link.next_s is None


def test_latency_is_kept_to():
    link = made(latency_s=0.5)
    link.send("a", 1.0)
    link.send("b", 1.2)
    assert link.next_s == 1.5
    assert link.due(1.49) == []
    assert link.due(1.5) == ["a"]
    assert link.due(2.0) == ["b"]


def test_jitter_spreads_and_nothing_is_overtaken():
    link = made(latency_s=0.1, jitter_s=0.2)
    arrivals, order = [], []
    for index in range(300):
        link.send(index, float(index))
        arrivals.append(link.next_s - index)
        order += link.due(index + 0.9)
    assert order == list(range(300))
    assert 0.1 <= min(arrivals) < 0.12
    assert 0.28 < max(arrivals) <= 0.3
    close = made(jitter_s=1.0)
    for index in range(50):
        close.send(index, index * 0.01)
    assert close.due(10.0) == list(range(50))


def test_dropout_loses_its_share_and_comes_from_the_seed():
    def arrived(seed):
        link = made(seed, dropout=0.3)
        for index in range(2000):
            link.send(index, 0.0)
        found = link.due(0.0)
        assert link.lost + len(found) == 2000
        return found

    assert 0.25 < 1 - len(arrived(1)) / 2000 < 0.35
    assert arrived(1) == arrived(1) != arrived(2)
    all_lost = made(dropout=1.0)
    all_lost.send("a", 0.0)
    assert all_lost.due(9.0) == []


def test_a_better_line_does_not_keep_what_is_under_way_longer():
    link = made(latency_s=5.0)
    link.send("a", 0.0)
    link.change(LinkQuality(), 1.0)
    link.send("b", 1.0)
    assert link.due(1.0) == ["a", "b"]
    link.change(LinkQuality(5.0), 1.0)
    link.send("c", 1.0)
    link.clear()
    assert link.due(9.0) == []


@pytest.mark.parametrize("quality", [{"latency_s": -1.0}, {"jitter_s": float("nan")}, {"dropout": 1.5}])
def test_impossible_qualities_are_refused(quality):
    with pytest.raises(ConfigError, match=r"dropout in 0\.\.1"):
        LinkQuality(**quality)


def test_imperfections_are_none_by_default_and_told_by_name():
    assert Imperfections().present == []
    worse = Imperfections(camera_latency_s=0.2, nan_joints=True, camera_scale=0.5, command_dropout=0.1)
    assert worse.present == ["camera_latency_s", "camera_scale", "nan_joints", "command_dropout"]
    assert worse.joints.perfect
    for line, topics in (("camera", "camera"), ("joints", "joint"), ("commands", "command")):
        bad = {f"{topics}_latency_s": 1.0, f"{topics}_jitter_s": 2.0, f"{topics}_dropout": 0.3}
        assert getattr(Imperfections(**bad), line) == LinkQuality(1.0, 2.0, 0.3)
    with pytest.raises(ConfigError, match=r"camera_dropout is 2.0; it must be in 0\.\.1"):
        Imperfections(camera_dropout=2.0)
    with pytest.raises(ConfigError, match="camera_encoding is 'jpeg'; it must be one of rgb8"):
        Imperfections(camera_encoding="jpeg")


def test_scaling_takes_the_nearest_pixels():
    image = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    np.testing.assert_array_equal(scaled(image, 0.5), image[::2, ::2])
    np.testing.assert_array_equal(scaled(image, 2.0), image.repeat(2, axis=0).repeat(2, axis=1))
    assert scaled(image, 0.05).shape == (1, 1, 3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_are_read_back(encoding):
    from sensor_msgs.msg import Image

    from deer_ros.conversions import image_to_rgb

    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    rows = encoded(image, encoding)
    message = Image(height=4, width=6, encoding=encoding, step=rows.shape[1], data=rows.tobytes())
    if encoding == "32FC1":
        assert rows.shape == (4, 24)
        with pytest.raises(ConfigError, match="can't be read"):
            image_to_rgb(message)
    elif encoding == "mono8":
        expected = np.rint(image @ np.array((0.299, 0.587, 0.114)))
        np.testing.assert_array_equal(image_to_rgb(message), np.repeat(expected[:, :, None], 3, axis=2))
    else:
        np.testing.assert_array_equal(image_to_rgb(message), image)
