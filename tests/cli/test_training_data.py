"""Episodes for training: what is shown, the chunks that should be given, and starts at which the expert fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deer_policies.deer.config import changed
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.presets import deer_nano
from deer_policies.errors import SimulatorError
from deer_policies.training.episodes import load_episode
from deer_ros.cli import training_data
from deer_ros.cli.training_data import ATTEMPTS, plan_round
from deer_sim import instructions
from deer_sim.collection import Episode
from deer_sim.landmarks import LANDMARKS
from deer_sim.playtable.scene import find_scene

CONFIG = changed(deer_nano(), {"preprocess": {"image_size": 32}, "vision": {"image_size": 32}})


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Episode]:
    """What was played in this process, as its only worker."""
    made: list[Episode] = []
    original = training_data._played

    def noted(*arguments: object) -> Episode:
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(training_data, "_worker", {})
    monkeypatch.setattr(training_data, "_played", noted)
    training_data._start_worker(CONFIG, None, "training", None)
    return made


def test_an_episode_has_what_is_seen_at_every_third_step_and_the_labels_of_the_next_three(
    tmp_path: Path, played: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "CHAINED_SHARE", 0.0)
    (plan,) = plan_round(tmp_path, ("D",), ("turn_on_led",), 1, 3)
    assert training_data._make_episode(plan)
    episode = load_episode(plan.path, {"turn_on_led": ("lamp on",)})
    (made,) = played
    assert made.instruction == plan.wording(instructions.training("turn_on_led"))
    looks = list(range(0, made.steps, 3))
    assert made.looked.tolist() == looks
    assert len(made.rgb_static) == len(looks) == len(episode.images)
    for index, look in enumerate(looks):
        shown = stack_views(made.rgb_static[index], made.rgb_gripper[index], CONFIG.preprocess)
        np.testing.assert_array_equal(episode.images[index], shown)
        np.testing.assert_array_equal(episode.proprioception[index], made.robot_obs[look].astype(np.float32))
        count = min(3, made.steps - look)
        np.testing.assert_array_equal(episode.labels[index, :count], made.rel_actions[look : look + 3])
        assert episode.known[index, 0]
        assert not episode.known[index, count:].any()
        # Where the blocks are, in m, beside sine and cosine of their yaw.
        np.testing.assert_allclose(episode.scene[index, 0:3], made.scene_obs[look, 6:9], rtol=1e-5)
    assert 0.5 < episode.known.mean() < 1.0
    assert episode.landmarks.shape == (len(looks), 2, len(LANDMARKS), 3)
    assert episode.landmarks[:, 0, :, 2].all()
    assert np.unique(episode.focus, axis=0).shape == (1, 5)
    np.testing.assert_allclose(episode.focus[0, 0], find_scene("D").button_x, rtol=1e-6)


def test_starts_at_which_the_expert_fails_are_replaced(
    tmp_path: Path, played: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First a prefix that was not done, then a task: neither is shown; the third start is taken."""
    begin, attempts = training_data.begin_at, []

    def unreached(environment: object, expert: object, start: object, seed: int) -> object:
        attempts.append(seed)
        first, _ = begin(environment, expert, start, seed)
        return first, len(attempts) > 1

    play = training_data._played

    def failing(*arguments: object) -> Episode:
        made = play(*arguments)
        return made if len(played) > 1 else replace(made, success=False)

    monkeypatch.setattr(training_data, "CHAINED_SHARE", 0.0)
    monkeypatch.setattr(training_data, "begin_at", unreached)
    monkeypatch.setattr(training_data, "_played", failing)
    (plan,) = plan_round(tmp_path, ("D",), ("turn_off_led",), 1, 3)
    assert training_data._make_episode(plan)
    assert len(set(attempts)) == 3
    assert len(played) == 2
    labels = load_episode(plan.path, {"turn_off_led": ("x",)}).labels
    np.testing.assert_array_equal(labels[0], played[1].rel_actions[:3])


def test_an_expert_that_always_fails_is_told(
    tmp_path: Path, played: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "CHAINED_SHARE", 0.0)
    monkeypatch.setattr(training_data, "begin_at", lambda *arguments: (None, False))
    (plan,) = plan_round(tmp_path, ("D",), ("turn_on_led",), 1, 3)
    with pytest.raises(SimulatorError, match=f"failed turn_on_led in scene D from {ATTEMPTS} starts"):
        training_data._make_episode(plan)
    assert not played
    assert not list(tmp_path.iterdir())


def test_a_task_with_an_emphasis_gets_that_many_times_the_episodes() -> None:
    tasks = ("open_drawer", "stack_block")
    plain = plan_round(Path(), ("A", "B"), tasks, 2, 7)
    more = plan_round(Path(), ("A", "B"), tasks, 2, 7, {"stack_block": 3})
    assert [sum(plan.task == task for plan in more) for task in tasks] == [4, 12]
    assert set(plain) < set(more)
    assert len({plan.path for plan in more}) == len({(plan.seed, plan.task, plan.scene) for plan in more}) == 16


def test_starts_are_chained_in_their_share() -> None:
    (plan,) = plan_round(Path(), ("A",), ("open_drawer",), 1, 0)
    rng = np.random.default_rng(0)
    chained = np.mean([bool(training_data._start(plan, rng).prefix) for _ in range(200)])
    assert chained == pytest.approx(training_data.CHAINED_SHARE, abs=0.1)
