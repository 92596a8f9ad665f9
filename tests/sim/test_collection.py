"""Demonstrations: labels are the expert's, disturbances are real and repeatable, and runs can be killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_sim import instructions
from deer_sim.collection import Disturbance, Episode, Recorder, begin_at, collect_episode
from deer_sim.dataset import CalvinDataset
from deer_sim.demonstrations import Plan, collect
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import sample_start

TASKS = ("turn_on_led", "turn_off_led")
PLAN = Plan("D", TASKS, episodes=3, seed=5)


def recorded(disturbance: Disturbance | None, seed: int = 0, task: str = "open_drawer") -> Episode:
    rng = np.random.default_rng(seed)
    with PlayTable("D", cameras=False) as environment:
        expert = Expert("D")
        first, _ = begin_at(environment, expert, sample_start(task, "D", rng), seed)
        return collect_episode(environment, expert, task, "open it", first, rng, disturbance)


def test_undisturbed_episode_executes_its_labels() -> None:
    episode = recorded(None)
    assert episode.success
    assert episode.rgb_static is None
    np.testing.assert_array_equal(episode.executed, episode.rel_actions)
    assert not episode.disturbed.any()


def test_disturbed_episode_is_marked_and_still_solved() -> None:
    episode = recorded(Disturbance(push_rate=0.1, push_steps=(5, 5), jitter=0.0), seed=1)
    assert episode.success
    differs = (episode.executed != episode.rel_actions).any(axis=1)
    assert episode.disturbed.sum() >= 5
    np.testing.assert_array_equal(episode.disturbed, differs)


def test_jitter_blurs_what_is_executed_but_not_the_labels() -> None:
    episode = recorded(Disturbance(push_rate=0.0, jitter=0.2), seed=2)
    spread = (episode.executed - episode.rel_actions)[:, :6].std()
    assert 0.05 < spread < 0.25
    assert not episode.disturbed.any()


def test_actions_are_in_range_and_absolute_ones_are_the_next_pose() -> None:
    episode = recorded(Disturbance(), seed=3)
    assert (np.abs(episode.rel_actions) <= 1.0).all()
    assert (np.abs(episode.executed) <= 1.0).all()
    np.testing.assert_array_equal(episode.actions[:-1, :6], episode.robot_obs[1:, :6])
    assert set(episode.actions[:, 6]) <= {-1.0, 1.0}


def test_same_seed_gives_the_same_episode() -> None:
    first, second = recorded(Disturbance(), seed=4), recorded(Disturbance(), seed=4)
    np.testing.assert_array_equal(first.robot_obs, second.robot_obs)
    np.testing.assert_array_equal(first.executed, second.executed)


def test_prefix_is_done_and_not_recorded() -> None:
    episode = recorded(None, seed=0, task="place_in_drawer")
    assert episode.success
    assert 0.03 < episode.robot_obs[0, 6] < 0.07, "the block is in the hand when the recording begins"


def test_pictures_are_of_every_so_many_steps_and_change_nothing_else() -> None:
    start, made = sample_start("turn_on_led", "D", np.random.default_rng(0)), []
    with PlayTable("D") as environment:
        for look_every in (1, 3):
            expert = Expert("D")
            first, _ = begin_at(environment, expert, start, 0)
            rng = np.random.default_rng(1)
            made.append(
                collect_episode(
                    environment, expert, "turn_on_led", "x", first, rng, Disturbance(), 40, look_every=look_every
                )
            )
    always, third = made
    assert third.looked.tolist() == list(range(0, third.steps, 3))
    assert always.looked.tolist() == list(range(always.steps))
    for name in ("robot_obs", "scene_obs", "rel_actions", "executed"):
        np.testing.assert_array_equal(getattr(third, name), getattr(always, name))
    for name in ("rgb_static", "rgb_gripper"):
        np.testing.assert_array_equal(getattr(third, name), getattr(always, name)[::3])


def test_empty_recording_is_refused() -> None:
    with PlayTable("D", cameras=False) as environment, pytest.raises(ConfigError, match="no frame"):
        Recorder("open_drawer", "open it").finish(environment.reset(0), success=False)


@pytest.mark.parametrize(
    "settings", [{"push_rate": 1.5}, {"gripper_rate": -0.1}, {"push_steps": (5, 2)}, {"jitter": float("nan")}]
)
def test_disturbance_is_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Disturbance(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ("fly",)}, "fly"),
        ({"tasks": ()}, "empty"),
        ({"episodes": 0}, "episodes is 0"),
        ({"wordings": "secret"}, "secret"),
    ],
)
def test_plan_is_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(**({"scene": "D", "tasks": TASKS, "episodes": 1, "seed": 0} | settings))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "data"
    assert len(list(collect(PLAN, folder, workers=2))) == 3
    return folder


def test_dataset_holds_what_the_plan_says(whole: Path) -> None:
    dataset = CalvinDataset(whole)
    assert [item.task for item in dataset.annotations] == ["turn_on_led", "turn_off_led", "turn_on_led"]
    for item in dataset.annotations:
        assert item.instruction in instructions.training(item.task)
        frames = list(dataset.frames(item))
        assert all((np.abs(frame["rel_actions"]) <= 1.0).all() for frame in frames)
        assert frames[0]["rgb_static"].std() > 10.0


def test_killed_run_goes_on_and_ends_with_the_same_files(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    code = (
        "from deer_sim.demonstrations import Plan, collect; from pathlib import Path\n"
        f"if __name__ == '__main__': list(collect({PLAN!r}, Path({str(folder)!r}), workers=1))"
    )
    script = tmp_path / "run.py"
    script.write_text("from deer_sim.collection import Disturbance\n" + code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, env=environment)
    try:
        limit = time.monotonic() + 120.0
        while not (folder / ".records" / "000000.json").exists() and time.monotonic() < limit:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "ep_start_end_ids.npy").exists()
    (folder / ".episode_0000360.npz.999").write_bytes(b"half a file")
    assert len(list(collect(PLAN, folder, workers=1))) == 3
    assert contents(folder) == contents(whole)


def test_finished_dataset_is_left_as_it_is(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.glob("episode_*.npz")}
    assert len(list(collect(PLAN, whole, workers=1))) == 3
    assert {path: path.stat().st_mtime_ns for path in whole.glob("episode_*.npz")} == before


def test_folder_of_another_plan_or_with_other_files_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        list(collect(Plan("D", TASKS, episodes=3, seed=6), whole))
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        list(collect(PLAN, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
