"""Episodes: their files, and the streams of windows that training reads."""

from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.training.episodes import EpisodeStreams, load_episode, save_episode


def test_streams_play_episodes_from_start_to_end(tiny):
    first = tiny.episode(10)
    streams = EpisodeStreams([first], batch=1, window=4, rng=np.random.default_rng(0))
    windows = [streams.next() for _ in range(4)]
    assert [bool(part.starts[0]) for part in windows] == [True, False, False, True]
    assert [part.weight.any(-1).sum() for part in windows] == [4, 4, 2, 4]
    for name in ("labels", "images", "proprioception", "scene", "landmarks", "focus"):
        played = np.concatenate([getattr(part, name)[0] for part in windows[:3]])
        assert np.array_equal(played[:10], getattr(first, name))
        assert not played[10:].any()


def test_streams_leave_out_a_scene_that_some_of_the_episodes_do_not_tell(tiny):
    told, recorded = tiny.episode(4), tiny.episode(4, "b", 1)
    nothing = {name: getattr(recorded, name)[:, :0] for name in ("scene", "focus")}
    recorded = replace(recorded, **nothing, landmarks=recorded.landmarks[:, :, :0])
    for episodes in ([told, recorded], [recorded, told]):
        streams = EpisodeStreams(episodes, 8, 4, np.random.default_rng(0))
        windows = streams.next()
        assert len({images.tobytes() for images in windows.images}) == 2
        assert (windows.scene.shape, windows.landmarks.shape) == ((8, 4, 0), (8, 4, 2, 0, 3))
        assert windows.focus.shape == (8, 4, 0)


def test_streams_draw_tasks_evenly_however_many_episodes_each_has(tiny):
    episodes = [tiny.episode(4, "a")] * 19 + [tiny.episode(4, "b", seed=1)]
    streams = EpisodeStreams(episodes, batch=1, window=4, rng=np.random.default_rng(0))
    seen = [np.array_equal(streams.next().labels[0], episodes[-1].labels) for _ in range(200)]
    assert 70 < sum(seen) < 130


def test_a_task_with_an_emphasis_is_drawn_that_much_more_often(tiny):
    first, other = tiny.episode(4, "a"), tiny.episode(4, "b", seed=1)
    streams = EpisodeStreams([first, other], 1, 4, np.random.default_rng(0), emphasis={"b": 4, "c": 9})
    seen = [np.array_equal(streams.next().labels[0], other.labels) for _ in range(400)]
    assert 290 < sum(seen) < 350


def test_streams_draw_a_wording_for_each_window(tiny):
    streams = EpisodeStreams([tiny.episode(40)], batch=1, window=4, rng=np.random.default_rng(0))
    assert {streams.next().instructions[0] for _ in range(10)} == set(tiny.texts)


def test_streams_can_cut_windows_anywhere_and_start_each_from_a_zero_state(tiny):
    long, short = tiny.episode(10), tiny.episode(3, "b", 1)
    streams = EpisodeStreams([long, short], 1, 4, np.random.default_rng(0), carry_state=False)
    firsts = set()
    for _ in range(100):
        windows = streams.next()
        assert windows.starts.all()
        count = int(windows.weight.any(-1).sum())
        source = long if count == 4 else short
        firsts |= {
            (source.task, first)
            for first in range(len(source.labels))
            if np.array_equal(source.labels[first : first + count], windows.labels[0, :count])
        }
    assert firsts == {("b", 0), *(("open_drawer", first) for first in range(7))}


def test_streams_go_on_exactly_where_others_were(tiny):
    for carry_state in (True, False):
        episodes = [tiny.episode(10), tiny.episode(7, "b", 1)]
        streams = EpisodeStreams(episodes, 3, 4, np.random.default_rng(0), carry_state)
        for _ in range(5):
            streams.next()
        state = streams.state()
        others = EpisodeStreams(episodes, 3, 4, np.random.default_rng(99), carry_state)
        others.go_on_from(state)
        for _ in range(5):
            ours, theirs = streams.next(), others.next()
            assert np.array_equal(ours.images, theirs.images)
            assert ours.instructions == theirs.instructions
            assert np.array_equal(ours.starts, theirs.starts)


def test_no_episode_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match="collect demonstrations"):
        EpisodeStreams([], 1, 4, np.random.default_rng(0))


def test_episode_file_round_trip_and_damage(tiny, tmp_path):
    path = tmp_path / "a" / "episode.npz"
    original = tiny.episode(5)
    save_episode(path, original)
    read = load_episode(path, {"open_drawer": ("other words",)})
    for name in ("images", "proprioception", "labels", "known", "scene", "landmarks", "focus"):
        assert np.array_equal(getattr(read, name), getattr(original, name))
    assert isinstance(read.images, np.memmap)
    assert (read.task, read.instructions) == ("open_drawer", ("other words",))
    assert sorted(file.name for file in path.parent.iterdir()) == ["episode.npy", "episode.npz"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"episode\.npz is not an episode file"):
        load_episode(path, {"open_drawer": ("x",)})
    save_episode(path, original)
    path.with_suffix(".npy").unlink()
    with pytest.raises(ConfigError, match=r"episode\.npz is not an episode file"):
        load_episode(path, {"open_drawer": ("x",)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((5, 7), np.float32)}, "they must be"),
        ({"labels": np.zeros((5, 3, 7), np.float32)}, "they must be"),
        ({"known": np.ones((4, 2), bool), "labels": np.zeros((4, 2, 7), np.float32)}, "make them equal"),
        ({"scene": np.zeros((4, 3), np.float32)}, "make them equal"),
        ({"landmarks": np.zeros((6, 2, 4, 3), np.float32)}, "make them equal"),
        ({"focus": np.zeros((4, 2), np.float32)}, "make them equal"),
        ({"images": np.zeros((5, 2, 3, 32, 32), np.float32)}, "uint8"),
        ({"instructions": ()}, "at least one wording"),
    ],
)
def test_an_episode_whose_parts_do_not_fit_is_refused(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(tiny.episode(5), **changes)
