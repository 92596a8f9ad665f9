"""Tests of the video writer and reader: what is written is read back frame by frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_sim.recording import VideoReader, VideoWriter


def test_film_plays_in_a_browser_and_keeps_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "film.mp4"
    levels = [20, 120, 220]
    with VideoWriter(path, 64, 48) as writer:
        for level in levels:
            writer.add(np.full((48, 64, 3), level, np.uint8), repeat=5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (64, 48, 30)
        means = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    assert len(means) == 15
    assert means[::5] == pytest.approx(levels, abs=4)


def test_index_lies_in_front_so_that_playing_starts_early(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", 64, 48) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8))
    content = (tmp_path / "film.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_unfinished_film_does_not_bear_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    writer = VideoWriter(path, 64, 48)
    writer.add(np.zeros((48, 64, 3), np.uint8))
    assert not path.exists()
    writer.close()
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


def test_no_frames_leave_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "film.mp4", 64, 48).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (0, 48)])
def test_odd_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="even"):
        VideoWriter(tmp_path / "film.mp4", *size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frame", [np.zeros((40, 64, 3), np.uint8), np.zeros((48, 64, 3), np.float32)])
def test_wrong_frame_is_refused_and_the_film_goes_on(tmp_path: Path, frame: np.ndarray) -> None:
    with VideoWriter(tmp_path / "film.mp4", 64, 48) as writer:
        with pytest.raises(ConfigError, match="video frame has shape"):
            writer.add(frame)
        writer.add(np.zeros((48, 64, 3), np.uint8))
        assert writer.frames == 1
    with pytest.raises(ConfigError, match="closed"):
        writer.add(np.zeros((48, 64, 3), np.uint8))


def test_reader_gives_the_frames_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 64, 48, keyframe_every=2) as writer:
        for level in range(20, 220, 20):
            writer.add(np.full((48, 64, 3), level, np.uint8))
    with av.open(str(path)) as container:
        assert [frame.key_frame for frame in container.decode(video=0)] == [True, False] * 5
    reader = VideoReader(path)
    for first, count in ((0, 3), (3, 2), (7, 1), (1, 4)):
        levels = [frame.mean() for frame in reader.read(first, count)]
        assert levels == pytest.approx([20 + 20 * (first + step) for step in range(count)], abs=4)
    with pytest.raises(ConfigError, match="has 10 frames, but frame 10 is asked for"):
        reader.read(8, 3)
    reader.close()


def test_damaged_film_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    for name in ("film.mp4", "missing.mp4"):
        with pytest.raises(ConfigError, match=f"{name} can't be read"):
            VideoReader(tmp_path / name).read(0, 1)
