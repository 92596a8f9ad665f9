"""Training data in CALVIN's layout: the packed episodes are the annotated frames, and `deer train` takes the folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from deer_policies.deer.checkpoint import load
from deer_policies.deer.config import PreprocessConfig
from deer_policies.deer.preprocess import stack_views
from deer_policies.errors import ConfigError
from deer_policies.training import frame_store
from deer_policies.training.episodes import Episode, EpisodeStreams
from deer_ros.cli import calvin_data
from deer_ros.cli.calvin_data import CalvinEpisodes, calvin_split
from deer_ros.cli.main import main
from deer_ros.cli.training_run import TrainingRun
from deer_sim.dataset import Annotation, frame_path
from tests.cli.test_cli_train import RECIPE
from tests.sim.calvin_splits import ANNOTATIONS, frame, write_split

PREPROCESS = PreprocessConfig(image_size=32)
TASKS = ("open_drawer", "turn_on_led")


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "data" / "training")


def episodes_of(split: Path, tasks: tuple[str, ...] = TASKS) -> CalvinEpisodes:
    return CalvinEpisodes(split, tasks, PREPROCESS, split.parents[1] / "cache")


def assert_is(episode: Episode, item: Annotation) -> None:
    frames = [frame(number) for number in range(item.start, item.end)]
    images = [stack_views(made["rgb_static"], made["rgb_gripper"], PREPROCESS).numpy() for made in frames]
    np.testing.assert_array_equal(episode.images, np.stack(images))
    for name, found in (("robot_obs", episode.proprioception), ("rel_actions", episode.labels[:, 0])):
        np.testing.assert_array_equal(found, np.stack([made[name] for made in frames]).astype(np.float32))
    assert (episode.task, episode.instructions) == (item.task, (item.instruction,))
    assert episode.known.shape == (len(frames), 1)
    assert episode.known.all()


def test_episodes_are_the_annotated_frames(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_store, "BLOCK", 5)
    before = sorted(os.listdir(split))
    data = episodes_of(split)
    data.pack(1)
    episodes = data.load(horizon=1)
    assert len(episodes) == 3
    for episode, item in zip(episodes, ANNOTATIONS, strict=True):
        assert_is(episode, item)
    assert data.sentences == ["open it", "pull out the drawer", "switch the light on"]
    assert sorted(os.listdir(split)) == before
    assert [len(episode.images) for episode in data.load(1, most_per_task=1)] == [8, 6]


def test_a_policy_that_gives_chunks_looks_at_every_so_many_frames_beginning_at_each_of_the_first(split: Path) -> None:
    data = episodes_of(split)
    data.pack(1)
    (plain, *_), (first, second, third, *others) = data.load(1), data.load(3)
    assert len(others) == 6
    assert [episode.task for episode in others] == [item.task for item in ANNOTATIONS[1:] for _ in range(3)]
    steps = len(plain.images)
    assert steps == 8
    for begin, episode in enumerate((first, second, third)):
        looks = range(begin, steps, 3)
        np.testing.assert_array_equal(episode.images, plain.images[looks])
        np.testing.assert_array_equal(episode.proprioception, plain.proprioception[looks])
        assert isinstance(episode.images, np.memmap)
        for labels, known, look in zip(episode.labels, episode.known, looks, strict=True):
            assert known.tolist() == [look + ahead < steps for ahead in range(3)]
            np.testing.assert_array_equal(labels[known], plain.labels[look : look + 3, 0])
    assert [len(episode.images) for episode in (first, second, third)] == [3, 3, 2]
    assert [len(episode.images) for episode in data.load(3, most_per_task=1)] == [3, 3, 2, 2, 2, 2]


def test_an_annotation_that_is_shorter_than_a_chunk_gives_an_episode_for_each_frame(tmp_path: Path) -> None:
    short = Annotation("open it", "open_drawer", 103, 105)
    data = episodes_of(write_split(tmp_path / "data" / "training", annotations=(short,)))
    data.pack(1)
    assert [episode.known.tolist() for episode in data.load(5)] == [
        [[True, True, False, False, False]],
        [[True, False, False, False, False]],
    ]


def test_windows_are_those_of_the_official_loader(split: Path) -> None:
    """Its first frames are range(start, end + 1 - window), where `end` is the one after the last."""
    data = episodes_of(split)
    data.pack(1)
    item, window = ANNOTATIONS[0], 3
    streams = EpisodeStreams(data.load(1)[:1], 1, window, np.random.default_rng(0), carry_state=False)
    robot = np.stack([frame(number)["robot_obs"] for number in range(item.start, item.end)]).astype(np.float32)
    firsts = set()
    for _ in range(100):
        windows = streams.next()
        assert windows.weight.all()
        firsts |= {
            item.start + place for place in range(len(robot)) if (windows.proprioception[0, 0] == robot[place]).all()
        }
    assert firsts == set(range(item.start, item.end + 1 - window))


def test_only_the_named_tasks_are_packed(split: Path) -> None:
    data = episodes_of(split, ("turn_on_led",))
    data.pack(1)
    (episode,) = data.load(1)
    assert_is(episode, ANNOTATIONS[1])
    with pytest.raises(ConfigError, match="no annotation of the tasks fly; it has open_drawer, turn_on_led"):
        episodes_of(split, ("fly",))


def test_packed_frames_are_kept_until_the_data_change(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes_of(split).pack(1)
    with monkeypatch.context() as patch:
        patch.setattr(calvin_data, "worker_pool", None)
        episodes_of(split).pack(1)
    os.utime(frame_path(split, 105), ns=(0, 0))
    changed = episodes_of(split)
    changed.pack(1)
    assert len(changed.load(1)) == 3
    assert len(list((split.parents[1] / "cache").iterdir())) == 2


def test_damaged_data_are_named(split: Path) -> None:
    frame_path(split, 105).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"episode_0000105\.npz can't be read"):
        episodes_of(split).pack(1)
    frame_path(split, 105).unlink()
    with pytest.raises(ConfigError, match=r"episode_0000105\.npz is missing"):
        episodes_of(split)


def test_windows_across_a_cut_are_refused(tmp_path: Path) -> None:
    across = (Annotation("open it", "open_drawer", 108, 202),)
    with pytest.raises(ConfigError, match="frames that are not recorded"):
        episodes_of(write_split(tmp_path / "data" / "training", annotations=across))


def test_an_annotation_may_end_with_its_recording(tmp_path: Path) -> None:
    last = Annotation("open it", "open_drawer", 202, 210)
    data = episodes_of(write_split(tmp_path / "data" / "training", annotations=(last,)))
    data.pack(1)
    assert_is(data.load(1)[0], last)


def test_a_lone_split_is_the_training_one(split: Path) -> None:
    assert calvin_split(split.parent, "training") == split
    assert calvin_split(split, "training") == split
    with pytest.raises(ConfigError, match="has no split 'validation'"):
        calvin_split(split, "validation")


def train(tmp_path: Path, **changes: object) -> int:
    """`deer train` with a tiny policy."""
    values = {
        **RECIPE,
        "data": {"calvin": str(tmp_path / "data")},
        "rounds": [{"phase": {"steps": 4, "learning_rate": 1.0e-3}}],
        "heads": {"steps": 2, "learning_rate": 1.0e-3},
        "language": None,
        "vision": None,
        "optimisation": {"batch": 4, "window": 5},
        "validation": {"episodes_per_task": 1, "every": 2, "patience": 9},
        **changes,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    places = ["--out", str(tmp_path / "out.safetensors"), "--work", str(tmp_path / "work")]
    return main(
        ["train", str(tmp_path / "recipe.yaml"), *places, "--threads", "1", "--workers", "1", "--device", "cpu"]
    )


def test_deer_train_takes_a_folder_in_calvins_layout(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The end of a run is the same for all data, and runs the simulator.
    monkeypatch.setattr(TrainingRun, "_finish", lambda self, trainer, out: None)
    write_split(tmp_path / "data" / "validation")
    assert train(tmp_path) == 0
    assert (tmp_path / "work/tiny/heads-1.safetensors").exists()
    assert not (tmp_path / "work/tiny/episodes").exists()
    assert len(list((tmp_path / "work/calvin").iterdir())) == 2
    log = (tmp_path / "work/tiny/log.jsonl").read_text()
    assert '"validation_loss"' in log
    assert '"scene"' not in log
    assert load(tmp_path / "work/tiny/heads-1.safetensors").model.config.head.horizon == 3
    assert "pull" in (tmp_path / "work/tiny/tokenizer.json").read_text()


def test_recipes_that_name_data_twice_or_nowhere_are_refused(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = {"steps": 1, "learning_rate": 1.0e-3}
    assert train(tmp_path, rounds=[{"phase": phase, "episodes_per_task": 2, "expert_acts": True}]) == 2
    assert "leave out its expert_acts and episodes_per_task" in capsys.readouterr().err
    assert train(tmp_path, data=None) == 2
    assert "or the recipe data" in capsys.readouterr().err
    assert train(tmp_path, rounds=[{"phase": phase}, {"phase": phase}]) == 2
    assert "episodes_per_task of at least 1" in capsys.readouterr().err
    assert train(tmp_path, data={"path": "x"}) == 2
    assert "data has unknown settings ['path']" in capsys.readouterr().err
