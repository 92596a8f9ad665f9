"""The dataset layout: what is written is read back, damaged and hostile files are refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from deer_policies.errors import ConfigError
from deer_sim.collection import Episode
from deer_sim.dataset import (
    Annotation,
    CalvinDataset,
    Statistics,
    frame_path,
    read_dictionary,
    write_frames,
    write_index,
)

STEPS = 4


def episode(images: bool = True) -> Episode:
    rng = np.random.default_rng(0)
    labels = rng.uniform(-1, 1, (STEPS, 7)).astype(np.float32)
    actions = rng.normal(size=(STEPS, 7))
    labels[:, 6] = actions[:, 6] = [1.0, 1.0, -1.0, -1.0]
    return Episode(
        task="open_drawer",
        instruction="pull out the drawer",
        success=True,
        rgb_static=rng.integers(0, 256, (STEPS, 200, 200, 3), np.uint8) if images else None,
        rgb_gripper=rng.integers(0, 256, (STEPS, 84, 84, 3), np.uint8) if images else None,
        robot_obs=rng.normal(size=(STEPS, 15)),
        scene_obs=rng.normal(size=(STEPS, 24)),
        rel_actions=labels,
        executed=labels,
        actions=actions,
        disturbed=np.array([False, True, False, False]),
        looked=np.arange(STEPS) if images else np.arange(0),
    )


def statistics(made: Episode) -> Statistics:
    return Statistics.of(made.robot_obs, made.scene_obs, made.actions)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = episode()
    write_frames(tmp_path, 360, made)
    annotation = Annotation(made.instruction, made.task, 360, 360 + STEPS)
    write_index(tmp_path, [(360, 363)], [annotation], {"calvin_scene_D": (360, 363)}, statistics(made))
    return tmp_path


def test_reader_reads_what_was_written(folder: Path) -> None:
    made, dataset = episode(), CalvinDataset(folder)
    assert dataset.recordings == [(360, 363)]
    assert dataset.annotations == [Annotation("pull out the drawer", "open_drawer", 360, 364)]
    frames = list(dataset.frames(dataset.annotations[0]))
    assert len(frames) == STEPS
    for name in ("rgb_static", "rgb_gripper", "robot_obs", "scene_obs", "rel_actions", "actions", "executed"):
        np.testing.assert_array_equal(np.stack([frame[name] for frame in frames]), getattr(made, name))
    assert [bool(frame["disturbed"]) for frame in frames] == made.disturbed.tolist()


def test_official_reader_expressions_work(folder: Path) -> None:
    language = np.load(folder / "lang_annotations" / "auto_lang_ann.npy", allow_pickle=True).item()
    assert language["info"]["indx"] == [(360, 364)]
    assert language["language"]["ann"] == ["pull out the drawer"]
    assert len(language["language"]["emb"]) == 1
    assert np.load(folder / "scene_info.npy", allow_pickle=True).item() == {"calvin_scene_D": [360, 363]}
    frame = np.load(folder / "episode_0000360.npz")
    assert frame["rel_actions"].shape == (7,)
    assert frame["rgb_static"].dtype == np.uint8


def test_statistics_are_those_of_the_frames(folder: Path) -> None:
    made, found = episode(), yaml.safe_load((folder / "statistics.yaml").read_text())
    np.testing.assert_allclose(found["robot_obs"][0]["mean"], made.robot_obs.mean(0))
    np.testing.assert_allclose(found["scene_obs"][0]["std"], made.scene_obs.std(0))
    np.testing.assert_allclose(found["act_max_bound"], made.actions.max(0))


def test_statistics_add_up() -> None:
    one = statistics(episode())
    assert (one + one).count == 2 * STEPS
    assert (one + one).text() == one.text()


def test_episode_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no images"):
        write_frames(tmp_path, 0, episode(images=False))


def test_damaged_frame_is_named(folder: Path) -> None:
    path = frame_path(folder, 361)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="episode_0000361"):
        CalvinDataset(folder).frame(361)


def test_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a dataset"):
        CalvinDataset(tmp_path)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.mark,))


def test_dictionary_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "auto_lang_ann.npy", tmp_path / "was_run"
    np.save(path, np.array({"language": Hostile(mark)}), allow_pickle=True)
    with pytest.raises(ConfigError, match="no plain value"):
        read_dictionary(path)
    assert not mark.exists()


def test_dictionary_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(ConfigError, match="must hold one dictionary"):
        read_dictionary(path)
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(ConfigError, match="can't be read"):
        read_dictionary(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dictionary_files_of_older_numpy_are_read(tmp_path: Path, protocol: int) -> None:
    value = {"emb": np.arange(6, dtype=np.float32).reshape(2, 1, 3), "indx": [(1, np.int64(65))], "ann": ["open it"]}
    path = tmp_path / "auto_lang_ann.npy"
    content = pickle.dumps(np.array(value, object), protocol)
    if protocol < 4:
        content = content.replace(b"numpy._core", b"numpy.core")
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(content)
    found = read_dictionary(path)
    np.testing.assert_array_equal(found.pop("emb"), value.pop("emb"))
    assert found == value
