"""LeRobot's format: what goes out comes back bit for bit, its files are as LeRobot's, damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deer_policies.errors import ConfigError
from deer_ros.cli.main import main
from deer_sim.dataset import CalvinDataset, frame_path, write_frame
from deer_sim.dataset.checking import check_split
from deer_sim.lerobot.export import export_split
from deer_sim.lerobot.importing import Names, import_dataset, task_of
from deer_sim.lerobot.reading import LeRobotFolder
from deer_sim.lerobot.writing import LeRobotWriter
from tests.sim.calvin_splits import ANNOTATIONS, frame, write_split

STEPS = 5
FOREIGN = Names("observation.images.top", "observation.images.wrist", "observation.state", "action")
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": [15], "names": None},
    "action": {"dtype": "float32", "shape": [7], "names": None},
    "observation.images.top": {"dtype": "image", "shape": [20, 20, 3], "names": None},
    "observation.images.wrist": {"dtype": "image", "shape": [12, 12, 3], "names": None},
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
"""Of a dataset that was not made by our export."""


def frames_of(episode: int) -> list[dict[str, np.ndarray]]:
    return [frame(1000 * episode + step, np.float32) for step in range(STEPS)]


def write_foreign(folder: Path, features: dict[str, dict[str, Any]] = FEATURES, scale: float = 1.0) -> Path:
    """Two episodes, with nothing in them that only CALVIN knows."""
    with LeRobotWriter(folder, features) as writer:
        for episode, text in enumerate(("Slide the drawer out", "Open the fridge!")):
            frames = frames_of(episode)
            values = {"observation.state": np.stack([made["robot_obs"] for made in frames])}
            values["action"] = scale * np.stack([made["rel_actions"] for made in frames])
            images = {"observation.images.top": [made["rgb_static"] for made in frames]}
            images["observation.images.wrist"] = [made["rgb_gripper"] for made in frames]
            writer.add(values, images, text)
    return folder


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "data")


@pytest.fixture
def exported(split: Path, tmp_path: Path) -> Path:
    assert export_split(split, tmp_path / "exported") == (3, 21)
    return tmp_path / "exported"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return write_foreign(tmp_path / "foreign")


def assert_same_frames(first: CalvinDataset, second: CalvinDataset) -> None:
    for number in second.numbers():
        ours, theirs = first.frame(number), second.frame(number)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_png_round_trip_is_bit_equal(tmp_path: Path, dtype: type) -> None:
    split = write_split(tmp_path / "data", dtype)
    for number in range(100, 112):
        made = {**frame(number, dtype), "executed": np.full(7, number / 999), "disturbed": np.bool_(number % 2)}
        write_frame(split, number, made)
    for number in range(200, 210):
        write_frame(split, number, {**frame(number, dtype), "executed": np.zeros(7), "disturbed": np.bool_(False)})
    export_split(split, tmp_path / "lerobot")
    assert import_dataset(tmp_path / "lerobot", tmp_path / "back") == (3, 17)
    before, after = CalvinDataset(split), CalvinDataset(tmp_path / "back")
    assert after.annotations == before.annotations
    assert after.recordings == [(100, 109), (202, 208)]
    assert after.scenes == {"calvin_scene_D": (100, 208)}
    assert_same_frames(before, after)
    assert check_split(tmp_path / "back").problems == []


def test_video_round_trip_keeps_all_but_the_pixels(tmp_path: Path) -> None:
    split = write_split(tmp_path / "data")
    for number in (*range(100, 112), *range(200, 210)):
        grey = {
            name: np.full_like(frame(number)[name], 20 + 8 * (number % 20)) for name in ("rgb_static", "rgb_gripper")
        }
        write_frame(split, number, {**frame(number), **grey})
    export_split(split, tmp_path / "lerobot", video=True)
    import_dataset(tmp_path / "lerobot", tmp_path / "back")
    before, after = CalvinDataset(split), CalvinDataset(tmp_path / "back")
    assert after.annotations == before.annotations
    for number in after.numbers():
        ours, theirs = before.frame(number), after.frame(number)
        np.testing.assert_array_equal(ours["rel_actions"], theirs["rel_actions"])
        # A frame's grey level tells which one it is.
        for name in ("rgb_static", "rgb_gripper"):
            assert float(theirs[name].mean()) == pytest.approx(20 + 8 * (number % 20), abs=3)


def test_files_are_as_lerobot_reads_them(exported: Path) -> None:
    info = json.loads((exported / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["fps"]) == (3, 21, 3, 30)
    seen = [name for name in info["features"] if name.startswith(("observation", "action"))]
    assert seen == ["action", "observation.state", "observation.images.static", "observation.images.gripper"]
    tasks = pq.read_table(exported / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    assert tasks.column("__index_level_0__").to_pylist() == [item.instruction for item in ANNOTATIONS]
    rows = pq.read_table(exported / "data/chunk-000/file-000.parquet")
    assert rows.column("index").to_pylist() == list(range(21))
    assert rows.column("calvin.frame").to_pylist() == [*range(100, 108), *range(104, 110), *range(202, 209)]
    np.testing.assert_allclose(rows.column("timestamp").to_pylist()[:8], np.arange(8) / 30, rtol=1e-6)
    assert rows.schema.field("action").type == pa.list_(pa.float64(), 7)
    episodes = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 8), (8, 14), (14, 21)]
    assert [row["tasks"] for row in episodes] == [[item.instruction] for item in ANNOTATIONS]


def test_statistics_are_those_of_the_frames(exported: Path, split: Path) -> None:
    statistics = json.loads((exported / "meta/stats.json").read_text())
    dataset = CalvinDataset(split)
    frames = [made for item in dataset.annotations for made in dataset.frames(item)]
    actions = np.stack([made["rel_actions"] for made in frames])
    for name, right in (("mean", actions.mean(0)), ("std", actions.std(0)), ("max", actions.max(0))):
        np.testing.assert_allclose(statistics["action"][name], right)
    pixels = np.stack([made["rgb_static"] for made in frames]) / 255
    found = np.array(statistics["observation.images.static"]["mean"])
    assert found.shape == (3, 1, 1)
    np.testing.assert_allclose(found[:, 0, 0], pixels.mean((0, 1, 2)))


def test_many_video_files_and_rows_are_written(split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deer_sim.lerobot.writing.VIDEO_FRAMES", 8)
    monkeypatch.setattr("deer_sim.lerobot.writing.DATA_FILE_MIB", 0)
    monkeypatch.setattr("deer_sim.lerobot.writing.CHUNK_FILES", 2)
    monkeypatch.setattr("deer_sim.lerobot.writing.EPISODES_AT_ONCE", 2)
    export_split(split, tmp_path / "lerobot", video=True)
    videos = tmp_path / "lerobot/videos/observation.images.static"
    names = ["chunk-000/file-000", "chunk-000/file-001", "chunk-001/file-000"]
    assert sorted(str(path.relative_to(videos)) for path in videos.rglob("*.mp4")) == [f"{name}.mp4" for name in names]
    assert import_dataset(tmp_path / "lerobot", tmp_path / "back") == (3, 17)


def test_data_of_others_are_imported(foreign: Path, tmp_path: Path) -> None:
    assert import_dataset(foreign, tmp_path / "back", FOREIGN) == (2, 2 * STEPS)
    dataset = CalvinDataset(tmp_path / "back")
    assert [item.task for item in dataset.annotations] == ["open_drawer", "open_the_fridge"]
    assert dataset.recordings == [(0, 4), (6, 10)]
    for episode, item in enumerate(dataset.annotations):
        frames = list(dataset.frames(item))
        for made, right in zip(frames, frames_of(episode), strict=True):
            for name in ("robot_obs", "rel_actions", "rgb_static", "rgb_gripper"):
                np.testing.assert_array_equal(made[name], right[name])
            assert np.isnan(made["scene_obs"]).all()
        for made, after in pairwise(frames):
            np.testing.assert_array_equal(made["actions"][:6], after["robot_obs"][:6])
        last = frames[-1]["robot_obs"][:6] + frames[-1]["rel_actions"][:6] * [0.02, 0.02, 0.02, 0.05, 0.05, 0.05]
        np.testing.assert_allclose(frames[-1]["actions"][:6], last, rtol=1e-5)
    assert check_split(tmp_path / "back").problems == []


def test_absolute_action_of_the_last_step_stays_within_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = frame(1, np.float32)
    near["robot_obs"][3], near["rel_actions"][3] = 3.14, 1.0
    monkeypatch.setattr("tests.sim.test_lerobot.frames_of", lambda episode: [near] * STEPS)
    import_dataset(write_foreign(tmp_path / "foreign"), tmp_path / "back", FOREIGN)
    dataset = CalvinDataset(tmp_path / "back")
    assert dataset.frame(dataset.annotations[0].end - 1)["actions"][3] == pytest.approx(3.14 + 0.05 - 2 * np.pi)


def test_older_version_is_read(foreign: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    info = json.loads((foreign / "meta/info.json").read_text())
    info["codebase_version"] = "v2.1"
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (older / "meta").mkdir(parents=True)
    (older / "data/chunk-000").mkdir(parents=True)
    (older / "meta/info.json").write_text(json.dumps(info))
    rows = pq.read_table(foreign / "data/chunk-000/file-000.parquet")
    tasks, episodes = [], []
    for index, text in enumerate(("Slide the drawer out", "Open the fridge!")):
        part = rows.slice(index * STEPS, STEPS)
        pq.write_table(part, older / f"data/chunk-000/episode_{index:06d}.parquet")
        tasks.append(json.dumps({"task_index": index, "task": text}))
        episodes.append(json.dumps({"episode_index": index, "tasks": [text], "length": STEPS}))
    (older / "meta/tasks.jsonl").write_text("\n".join(tasks))
    (older / "meta/episodes.jsonl").write_text("\n".join(episodes))
    import_dataset(older, tmp_path / "of_older", FOREIGN)
    import_dataset(foreign, tmp_path / "of_newer", FOREIGN)
    first, second = CalvinDataset(tmp_path / "of_older"), CalvinDataset(tmp_path / "of_newer")
    assert first.annotations == second.annotations
    assert_same_frames(first, second)


def change_rows(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def change_info(folder: Path, **changes: Any) -> None:
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_column(name: str, values: Any) -> Callable[[Path], None]:
    def change(table: Any) -> Any:
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array(values, table.schema.field(name).type))

    return lambda folder: change_rows(folder, change)


def cut(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:500])


NO_IMAGES = [{"bytes": None, "path": "x"}] * 21
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no info": (lambda folder: (folder / "meta/info.json").unlink(), "not a dataset in LeRobot's format"),
    "version": (lambda folder: change_info(folder, codebase_version="v1.6"), "version v1.6"),
    "no episodes": (lambda folder: shutil.rmtree(folder / "meta/episodes"), "has no episode"),
    "no tasks": (lambda folder: (folder / "meta/tasks.parquet").unlink(), "meta is damaged"),
    "no data": (lambda folder: shutil.rmtree(folder / "data"), "can't be read"),
    "truncated": (cut, "can't be read"),
    "rows missing": (lambda folder: change_rows(folder, lambda table: table.slice(0, 20)), "6 rows of episode 2"),
    "column missing": (
        lambda folder: change_rows(folder, lambda table: table.drop_columns(["action"])),
        "lacks the columns action",
    ),
    "image": (replace_column("observation.images.static", NO_IMAGES), "image 'observation.images.static' of step 0"),
    "unknown task": (replace_column("task_index", [7] * 21), "has task 7"),
    "frame numbers": (
        replace_column("calvin.frame", [*range(100, 107), 300, *range(104, 110), *range(202, 209)]),
        "out",
    ),
    "two in one": (replace_column("calvin.frame", [*range(8), *range(6), *range(7)]), "several datasets in one"),
    "not finite": (replace_column("observation.state", [[np.inf] * 15] * 21), "not finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_are_refused(exported: Path, tmp_path: Path, damage: str) -> None:
    harm, words = DAMAGES[damage]
    harm(exported)
    with pytest.raises(ConfigError, match=words):
        import_dataset(exported, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_two_instructions_in_an_episode_are_two_annotations(exported: Path, tmp_path: Path) -> None:
    replace_column("task_index", [0] * 5 + [1] * 3 + [1] * 6 + [2] * 7)(exported)
    import_dataset(exported, tmp_path / "back")
    found = [(item.instruction, item.start, item.end) for item in CalvinDataset(tmp_path / "back").annotations]
    assert found[:2] == [("pull out the drawer", 100, 105), ("switch the light on", 105, 108)]


def test_what_does_not_fit_is_refused(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no feature 'observation.images.static'; it has .*observation.images.top"):
        import_dataset(foreign, tmp_path / "back")
    with pytest.raises(ConfigError, match=r"'action' has shape \(7,\); it must be \(15,\)"):
        import_dataset(foreign, tmp_path / "back", Names(state="action"))
    with pytest.raises(ConfigError, match="within -1 and 1"):
        import_dataset(write_foreign(tmp_path / "large", scale=3.0), tmp_path / "back", FOREIGN)


def test_export_refuses_what_it_can_not_describe(split: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        export_split(split, tmp_path / "there")
    write_frame(split, 105, frame(105, np.float32))
    with pytest.raises(ConfigError, match="frame 105 has another actions than the first frame"):
        export_split(split, tmp_path / "lerobot")
    frame_path(split, 105).unlink()
    with pytest.raises(ConfigError, match=r"episode_0000105\.npz is missing"):
        export_split(split, tmp_path / "lerobot")
    assert not (tmp_path / "lerobot").exists()


def test_missing_pyarrow_is_explained(split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="pip install 'deer_ros"):
        export_split(split, tmp_path / "lerobot")
    with pytest.raises(ConfigError, match="pip install 'deer_ros"):
        LeRobotFolder(tmp_path)


def test_task_of_a_wording() -> None:
    assert task_of("Slide the  drawer out") == "open_drawer"
    assert task_of("Feed the cat, now!") == "feed_the_cat_now"


def test_commands_convert_both_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("training", "validation"):
        write_split(tmp_path / "data" / name)
    lerobot, back = tmp_path / "lerobot", tmp_path / "back"
    assert main(["dataset", "export", str(tmp_path / "data"), "--format", "lerobot", "--out", str(lerobot)]) == 0
    assert f"3 episodes, 21 frames in {lerobot / 'validation'}" in capsys.readouterr().out
    assert main(["dataset", "import", str(lerobot), "--format", "lerobot", "--out", str(back)]) == 0
    assert f"3 annotations, 17 frames in {back / 'validation'}" in capsys.readouterr().out
    assert_same_frames(CalvinDataset(tmp_path / "data/training"), CalvinDataset(back / "training"))


def test_import_command_takes_names_of_features(foreign: Path, tmp_path: Path) -> None:
    names = ["--static", FOREIGN.static, "--gripper", FOREIGN.gripper, "--state", FOREIGN.state]
    arguments = ["dataset", "import", str(foreign), "--out", str(tmp_path / "back"), *names]
    assert main([*arguments, "--action", "reward"]) == 2
    assert main([*arguments, "--action", FOREIGN.action]) == 0
    assert len(CalvinDataset(tmp_path / "back").annotations) == 2
