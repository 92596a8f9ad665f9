"""Demonstrations out of a recording, with a policy and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mcap_ros2")
pytest.importorskip("rclpy")

from deer_msgs.msg import GoalStatus
from std_msgs.msg import Float64, String

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.cli.main import main
from deer_ros.recording.demonstrations import MEASURED, POLICY, demonstrations
from deer_ros.recording.reading import Recording
from deer_ros.recording.runs import read_runs
from deer_ros.recording.spans import spans
from deer_sim.dataset import CalvinDataset
from tests.ros.recorded_film import ARM, HOME, PERIOD_NS, Film, Scripted, chunked_goal, frames_of


@pytest.fixture
def film(tmp_path: Path) -> Film:
    return Film(tmp_path / "run.mcap")


def test_the_policys_answers_are_demonstrations(film: Film) -> None:
    chunked_goal(film, 0)
    chunked_goal(film, 1, GoalStatus.CANCELLED)
    chunked_goal(film, 2, skip=(("action", 1),))
    runs = read_runs(film.close())
    found, left_out = demonstrations(runs, POLICY, everything=False)
    assert [(item.instruction, item.task, len(item.images)) for item in found] == [("go", "open_drawer", 4)]
    assert left_out == [
        "'go': it ended CANCELLED; --all takes it, too",
        "'go': the action of control step 2 was not recorded",
    ]
    expected = [Scripted.values(index // 2 + 1, index % 2) for index in range(4)]
    np.testing.assert_array_equal(found[0].rel_actions, np.array(expected, np.float32))
    assert found[0].robot_obs[:, 14].tolist() == [1.0, -1.0, -1.0, -1.0], "what the gripper was told before each frame"
    np.testing.assert_array_equal(found[0].robot_obs[0, 7:14], HOME.astype(np.float32))
    assert len(demonstrations(runs, POLICY, everything=True)[0]) == 2


def teleoperated(film: Film, stamps, judged: bool = True) -> list[np.ndarray]:
    """An instruction is said, somebody moves the arm and closes the gripper half-way; poses (6,) of each frame."""
    film.frame(stamps[0] - 2 * PERIOD_NS)
    film.say(graph.INSTRUCTION, String(data="move it"))
    poses = []
    for index, stamp in enumerate(stamps):
        joints = HOME + 0.004 * index * np.array((1, -1, 0, 1, 0, 0, 0))
        film.frame(stamp, joints)
        poses.append(np.concatenate(ARM.geometry.tcp_pose(joints)))
        if index == len(stamps) // 2:
            film.say(graph.GRIPPER_COMMAND, Float64(data=0.0))
    if judged:
        film.done(stamps[-1] + PERIOD_NS, "push_it")
    film.frame(stamps[-1] + 2 * PERIOD_NS)
    return poses


def test_motion_that_somebody_made_is_a_demonstration(film: Film) -> None:
    poses = teleoperated(film, frames_of(1, 9))
    runs = read_runs(film.close())
    assert [(span.instruction, span.outcome, len(span.stamps)) for span in spans(runs)] == [("move it", "DONE", 9)]
    found, left_out = demonstrations(runs, MEASURED, everything=False)
    assert left_out == []
    item = found[0]
    assert (item.task, len(item.images), item.clipped, item.gaps) == ("push_it", 8, 0, 0)
    scale = np.repeat([0.02, 0.05], 3)
    moved = np.cumsum(item.rel_actions[:, :6] * scale, axis=0)
    np.testing.assert_allclose(moved[-1], poses[-1] - poses[0], atol=1e-5)
    assert np.abs(moved[-1]).max() > 0.01
    # The command is given after frame 4: it acts from there on, and the state tells it from frame 5 on.
    assert item.rel_actions[:, 6].tolist() == [1.0] * 4 + [-1.0] * 4
    assert item.robot_obs[:, 14].tolist() == [1.0] * 5 + [-1.0] * 3


def test_a_kind_of_actions_that_there_is_not(film: Film) -> None:
    teleoperated(film, frames_of(1, 9))
    with pytest.raises(ConfigError, match="actions is 'guessed'; it must be policy or measured"):
        demonstrations(read_runs(film.close()), "guessed", everything=False)


def test_faster_and_slower_cameras(film: Film, tmp_path: Path) -> None:
    """60 Hz is thinned out; at 25 Hz, the motion of a control period is told."""
    fast = teleoperated(film, [10**9 + index * PERIOD_NS // 2 for index in range(17)])
    found, _ = demonstrations(read_runs(film.close()), MEASURED, everything=True)
    assert len(found[0].images) == 8
    total = (found[0].rel_actions[:, :3] * 0.02).sum(axis=0)
    np.testing.assert_allclose(total, fast[-1][:3] - fast[0][:3], atol=1e-5)
    slow_film = Film(tmp_path / "slow.mcap")
    slow = teleoperated(slow_film, [10**9 + index * 40_000_000 for index in range(9)])
    found, _ = demonstrations(read_runs(slow_film.close()), MEASURED, everything=True)
    total = (found[0].rel_actions[:, :3] * 0.02).sum(axis=0)
    np.testing.assert_allclose(total, (slow[-1][:3] - slow[0][:3]) / 1.2, atol=1e-5)


def test_motion_over_a_gap_is_left_out_and_a_jump_is_clipped(film: Film, tmp_path: Path) -> None:
    stamps = frames_of(1, 9)
    teleoperated(film, [*stamps[:4], *(stamp + 6 * PERIOD_NS for stamp in stamps[4:])])
    found, left_out = demonstrations(read_runs(film.close()), MEASURED, everything=True)
    assert found == []
    assert "motion can't be told over such a gap" in left_out[0]
    jump = Film(tmp_path / "jump.mcap")
    jump.frame(10**9)
    jump.say(graph.INSTRUCTION, String(data="jump"))
    for index in range(3):
        jump.frame(2 * 10**9 + index * PERIOD_NS, HOME + 0.2 * index)
    found, left_out = demonstrations(read_runs(jump.close()), MEASURED, everything=False)
    assert (found, left_out) == ([], ["'jump': it ended UNKNOWN; --all takes it, too"])
    found, _ = demonstrations(read_runs(Recording(jump.path)), MEASURED, everything=True)
    assert found[0].clipped == 2
    assert np.abs(found[0].rel_actions).max() == 1.0


def test_teleoperation_on_the_command_line(film: Film, tmp_path: Path, capsys) -> None:
    teleoperated(film, frames_of(1, 9))
    film.close()
    arguments = ["dataset", "from-recording", str(film.path), "--out", str(tmp_path / "data")]
    assert main(arguments) == 2
    assert "take --actions measured for teleoperation" in capsys.readouterr().err
    assert main([*arguments, "--actions", "measured"]) == 0
    dataset = CalvinDataset(tmp_path / "data" / "training")
    assert [(item.instruction, item.task) for item in dataset.annotations] == [("move it", "push_it")]
    assert main([*arguments, "--actions", "measured"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_images_that_the_layout_does_not_hold_are_refused(film: Film, tmp_path: Path, capsys) -> None:
    film.frame(10**9)
    film.say(graph.INSTRUCTION, String(data="look"))
    for index in range(3):
        film.frame(2 * 10**9 + index * PERIOD_NS, static=np.zeros((6, 8, 3), np.uint8))
    film.close()
    arguments = ["dataset", "from-recording", str(film.path), "--out", str(tmp_path / "data")]
    assert main([*arguments, "--actions", "measured", "--all"]) == 2
    assert "rgb_static is (6, 8, 3) uint8; it must be (n, n, 3) uint8" in capsys.readouterr().err
    assert not (tmp_path / "data" / "training").exists()
