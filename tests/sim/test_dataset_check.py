"""`deer dataset check` finds every kind of damage, and names file, fault and remedy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deer_ros.cli.main import main
from deer_sim.dataset import CalvinDataset, frame_path, read_dictionary
from deer_sim.dataset.checking import check_split, frame_ranges
from deer_sim.dataset.pickles import dictionary_bytes
from tests.sim.calvin_splits import frame, write_split

LANGUAGE = "lang_annotations/auto_lang_ann.npy"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "training")


def change_frame(folder: Path, number: int, **changes: Any) -> None:
    arrays = {**frame(number), **changes}
    np.savez_compressed(
        frame_path(folder, number), **{key: value for key, value in arrays.items() if value is not None}
    )


def change_language(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    entries = read_dictionary(folder / LANGUAGE)
    change(entries)
    (folder / LANGUAGE).write_bytes(dictionary_bytes(entries))


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def flip(path: Path) -> None:
    """Changes one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def save(path: Path, value: Any) -> None:
    content = io.BytesIO()
    np.save(content, value)
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_split_has_no_problem(tmp_path: Path, dtype: type) -> None:
    report = check_split(write_split(tmp_path, dtype))
    assert report.problems == []
    text = "\n".join(report.summary)
    assert "22 frames in 2 recordings" in text
    assert "3 annotations of 6 to 8 frames, 17 different frames in all; 2 tasks, 3 sentences" in text
    assert f"{np.dtype(dtype)} in 22 frames" in text
    assert "rgb_static 20 x 20" in text


def other_image(name: str, *shape: int) -> Callable[[Path], None]:
    return lambda folder: change_frame(folder, 105, **{name: np.zeros(shape, np.uint8)})


FRAME_DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda folder: frame_path(folder, 105).unlink(), "is missing"),
    "truncated": (lambda folder: cut(frame_path(folder, 105)), "can't be read"),
    "empty": (lambda folder: frame_path(folder, 105).write_bytes(b""), "can't be read"),
    "flipped byte": (lambda folder: flip(frame_path(folder, 105)), "can't be read"),
    "array missing": (lambda folder: change_frame(folder, 105, rel_actions=None), "lacks rel_actions"),
    "vector shape": (lambda folder: change_frame(folder, 105, robot_obs=np.zeros(14)), r"robot_obs is \(14,\) float64"),
    "vector dtype": (lambda folder: change_frame(folder, 105, actions=np.ones(7, int)), "actions is .7,. int64"),
    "not finite": (lambda folder: change_frame(folder, 105, robot_obs=np.full(15, np.nan)), "not finite"),
    "gripper": (lambda folder: change_frame(folder, 105, rel_actions=np.full(7, 0.5)), "gripper command 0.5"),
    "image shape": (other_image("rgb_static", 20, 19, 3), r"rgb_static is \(20, 19, 3\)"),
    "image size": (other_image("rgb_gripper", 13, 13, 3), "13 x 13, where most frames have 12 x 12"),
    "depth": (lambda folder: change_frame(folder, 105, depth_static=np.zeros((9, 9))), r"depth_static is \(9, 9\)"),
}


@pytest.mark.parametrize("damage", FRAME_DAMAGES)
def test_damaged_frame_is_found(split: Path, damage: str) -> None:
    harm, words = FRAME_DAMAGES[damage]
    harm(split)
    report = check_split(split)
    assert len(report.problems) == 1
    assert report.damaged == [105]
    assert "episode_0000105.npz" in report.problems[0]
    assert "from the downloaded archive again" in report.problems[0]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(report.problems[0])


def set_bounds(bounds: Any) -> Callable[[Path], None]:
    return lambda folder: save(folder / "ep_start_end_ids.npy", np.array(bounds))


def overlap(folder: Path) -> None:
    (folder / "ep_lens.npy").unlink()
    set_bounds([[100, 111], [105, 111], [200, 209]])(folder)


def set_window(window: tuple[int, int]) -> Callable[[Path], None]:
    return lambda folder: change_language(folder, lambda entries: entries["info"]["indx"].__setitem__(0, window))


def write(name: str, text: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return harm


INDEX_DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bounds missing": (lambda folder: (folder / "ep_start_end_ids.npy").unlink(), "not a dataset in CALVIN's layout"),
    "bounds truncated": (lambda folder: cut(folder / "ep_start_end_ids.npy", 0.9), "not a dataset in CALVIN's layout"),
    "bounds shape": (set_bounds([1, 2, 3]), r"holds \(3,\) int64"),
    "bounds reversed": (set_bounds([[111, 100]]), r"recording \[111, 100\]"),
    "bounds overlap": (overlap, "overlap"),
    "language missing": (lambda folder: (folder / LANGUAGE).unlink(), "can't be read as a dictionary"),
    "language truncated": (lambda folder: cut(folder / LANGUAGE), "can't be read as a dictionary"),
    "texts and windows": (
        lambda folder: change_language(folder, lambda entries: entries["language"]["ann"].pop()),
        "language.ann 2, language.task 3, info.indx 3, language.emb 3",
    ),
    "embeddings": (
        lambda folder: change_language(folder, lambda entries: entries["language"].update(emb=np.zeros((1, 1, 384)))),
        "language.emb 1",
    ),
    "entry missing": (lambda folder: change_language(folder, lambda entries: entries.pop("info")), "lacks the layout"),
    "window empty": (set_window((108, 108)), "which are none"),
    "window out of range": (set_window((100, 113)), "frames 100-112, which no single recording holds"),
    "window across a cut": (set_window((108, 202)), "frames 108-201, which no single recording holds"),
    "window before all": (set_window((1, 5)), "frames 1-4, which no single recording holds"),
    "scenes": (
        lambda folder: (folder / "scene_info.npy").write_bytes(dictionary_bytes({"calvin_scene_A": [0, 150]})),
        "names no scene for the recordings 200-209",
    ),
    "lengths": (lambda folder: save(folder / "ep_lens.npy", np.array([12, 9])), "2 lengths that are not those"),
    "statistics": (write("statistics.yaml", "robot_obs: 1"), "statistics.yaml can't be read"),
    "embeddings file": (
        lambda folder: (folder / "lang_annotations/embeddings.npy").write_bytes(dictionary_bytes({"a": {"ann": []}})),
        "lacks emb or ann for a",
    ),
    "settings": (write(".hydra/merged_config.yaml", "robot: {use_nullspace: false}"), "use_nullspace: true"),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGES)
def test_damaged_index_is_found(split: Path, damage: str) -> None:
    harm, words = INDEX_DAMAGES[damage]
    harm(split)
    report = check_split(split)
    assert len(report.problems) == 1
    assert str(split) in report.problems[0]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(report.problems[0])


def test_all_problems_are_reported_by_several_workers_as_by_one(split: Path) -> None:
    frame_path(split, 100).unlink()
    cut(frame_path(split, 203))
    set_window((100, 113))(split)
    assert len(check_split(split).problems) == 3
    assert check_split(split, workers=2) == check_split(split)


def test_older_closed_gripper_is_read_as_closed(split: Path) -> None:
    zero = {name: frame(100)[name] for name in ("actions", "rel_actions", "robot_obs")}
    for vector in zero.values():
        vector[-1] = 0.0
    change_frame(split, 100, **zero)
    report = check_split(split)
    assert report.problems == []
    assert any("1 frames hold the older 0 for a closed gripper" in line for line in report.summary)
    assert [CalvinDataset(split).frame(100)[name][-1] for name in zero] == [-1.0, -1.0, -1.0]


def test_annotations_beside_the_frames_and_no_optional_file(split: Path) -> None:
    (split / LANGUAGE).rename(split / "auto_lang_ann.npy")
    for name in ("scene_info.npy", "statistics.yaml", "ep_lens.npy"):
        (split / name).unlink()
    assert check_split(split).problems == []
    assert CalvinDataset(split).scene_of(100) is None


def test_command_reads_all_splits_and_exits_1_for_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("training", "validation"):
        write_split(tmp_path / name)
    assert main(["dataset", "check", str(tmp_path), "--workers", "1"]) == 0
    assert capsys.readouterr().out.count("22 frames in 2 recordings") == 2
    for number in (203, 204, 207):
        frame_path(tmp_path / "validation", number).unlink()
    assert main(["dataset", "check", str(tmp_path), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "to be extracted from the archive again: frames 203-204, 207" in printed
    assert "3 problems found" in printed


def test_command_refuses_a_folder_that_is_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "check", str(tmp_path)]) == 2
    assert "neither ep_start_end_ids.npy nor a folder training or validation" in capsys.readouterr().err


def test_frame_ranges() -> None:
    assert frame_ranges([3, 7, 8, 9, 12]) == "3, 7-9, 12"
