"""Packed frames: what is written is what windows show, and what a kill left out is missing; reading ahead."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.training import frame_store
from deer_policies.training.episodes import EpisodeStreams
from deer_policies.training.frame_store import FrameStore
from deer_policies.training.read_ahead import ReadAhead

SHAPE = (2, 3, 8, 8)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(frame_store, "BLOCK", 4)


def content(block):
    rng = np.random.default_rng(block.start)
    images = rng.integers(0, 256, (len(block), *SHAPE), np.uint8)
    return images, rng.normal(size=(len(block), 15)), rng.normal(size=(len(block), 7))


def filled(folder):
    store = FrameStore(folder, 10, SHAPE)
    store.create()
    for block in store.missing():
        store.write(block, *content(block))
    return store


def test_what_is_read_is_what_was_written(tmp_path, small_blocks):
    filled(tmp_path)
    found = FrameStore(tmp_path, 10, SHAPE).read(range(3, 9))
    blocks = [content(block) for block in (range(4), range(4, 8), range(8, 10))]
    images, robot, labels = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    for read, written in zip(found, (images, robot.astype(np.float32), labels.astype(np.float32)), strict=True):
        assert np.array_equal(read, written[3:9])


def test_images_stay_on_the_disk(tmp_path):
    filled(tmp_path)
    images, _, _ = FrameStore(tmp_path, 10, SHAPE).read(range(2, 5))
    assert isinstance(images, np.memmap)
    assert images.flags.writeable


def test_missing_blocks_are_those_that_were_not_written(tmp_path, small_blocks):
    store = FrameStore(tmp_path, 10, SHAPE)
    store.create()
    assert store.missing() == [range(4), range(4, 8), range(8, 10)]
    store.write(range(4, 8), *content(range(4, 8)))
    again = FrameStore(tmp_path, 10, SHAPE)
    again.create()
    assert again.missing() == [range(4), range(8, 10)]


def test_lost_images_are_missing_again(tmp_path, small_blocks):
    store = filled(tmp_path)
    (tmp_path / "images.bin").unlink()
    store.create()
    assert len(store.missing()) == 3


def test_full_disk_is_told_beforehand(tmp_path):
    with pytest.raises(ConfigError, match=r"needs .* GiB for 1000000000000 frames"):
        FrameStore(tmp_path, 10**12, SHAPE).create()
    assert not (tmp_path / "images.bin").exists()


@pytest.mark.parametrize("carry_state", [True, False])
def test_reading_ahead_gives_the_same_windows_also_after_going_on(tiny, carry_state):
    episodes = [tiny.episode(10), tiny.episode(7, "b", 1)]

    def streams(seed):
        return EpisodeStreams(episodes, 3, 4, np.random.default_rng(seed), carry_state)

    plain, ahead = streams(0), ReadAhead(streams(0))
    assert ahead.state() == plain.state()
    for _ in range(5):
        assert np.array_equal(ahead.next().images, plain.next().images)
        assert ahead.state() == plain.state()
    others = ReadAhead(streams(99))
    others.next()
    others.go_on_from(ahead.state())
    for _ in range(5):
        windows = plain.next()
        for reader in (ahead, others):
            found = reader.next()
            assert np.array_equal(found.images, windows.images)
            assert found.instructions == windows.instructions


def test_the_next_windows_are_read_before_they_are_asked_for(tiny):
    class Counted(EpisodeStreams):
        read = 0

        def next(self):
            Counted.read += 1
            return super().next()

    ahead = ReadAhead(Counted([tiny.episode(10)], 1, 4, np.random.default_rng(0)))
    ahead.next()
    ahead._thread.shutdown()
    assert Counted.read == 2
