"""Goals with their steps out of a recording, answered again by a policy; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mcap_ros2")
pytest.importorskip("rclpy")

from deer_msgs.msg import GoalStatus

from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget, PolicyInfo
from deer_ros.cli.main import main
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.recording.reading import Recording
from deer_ros.recording.replaying import Comparison, PolicySettings, replay
from deer_ros.recording.runs import read_runs
from tests.ros.recorded_film import GRIPPER, SHA256, STATIC, Film, Reducible, Scripted, chunked_goal


def replayed(recording: Recording, policy: Scripted | None = None) -> Comparison:
    pinned: list[int] = []

    def pin(made: Scripted, exit_index: int) -> None:
        made.exit_index = exit_index
        pinned.append(exit_index)

    policy = policy or Scripted()
    return replay(recording, read_runs(recording), lambda settings: policy, pin)


@pytest.fixture
def film(tmp_path: Path) -> Film:
    return Film(tmp_path / "run.mcap")


def test_goals_are_put_together_and_answered_again(film: Film) -> None:
    chunked_goal(film, 0)
    chunked_goal(film, 1, GoalStatus.TIMEOUT)
    recording = film.close()
    runs = read_runs(recording)
    assert [(goal.instruction, goal.outcome, goal.gap) for goal in runs.goals] == [
        ("go", "DONE", ""),
        ("go", "TIMEOUT", ""),
    ]
    assert [[len(step.actions) for step in goal.steps] for goal in runs.goals] == [[2, 2], [2, 2]]
    found = replayed(recording)
    assert found.equal
    assert (found.goals, found.steps, found.actions) == (2, 4, 8)


@pytest.mark.parametrize("namespace", ["/robot1", "/fleet/robot1"])
def test_a_graph_in_a_namespace(tmp_path: Path, namespace: str) -> None:
    film = Film(tmp_path / "run.mcap", namespace)
    film.writer.metadata(
        f"parameters {namespace}/policy", {"tcp_offset_m": "0.2", "base_position_m": "[0.0, 0.0, 1.0]"}
    )
    chunked_goal(film)
    recording = film.close()
    runs = read_runs(recording)
    assert (runs.namespace, len(runs.goals)) == (namespace, 1)
    assert runs.arm.geometry == ArmGeometry((0.0, 0.0, 1.0), 0.2)
    found = replayed(recording)
    assert "proprioception differs by up to" in found.first, "the arm is another one than that of the recorded input"


def test_the_stamps_that_the_node_told_decide_which_messages_were_a_frame(film: Film) -> None:
    chunked_goal(film, late_ns=4_000_000)
    assert replayed(film.close()).equal


@pytest.mark.parametrize(
    ("skip", "words", "steps"),
    [
        (("frame", 2), "from policy step 2 of 2: its static and gripper and joints message was not recorded", 1),
        (("input", 0), "from policy step 1 of 2: its message on policy/input was not recorded", 0),
        (("report", 2), "from policy step 2 of 2: its message on policy/exit_report was not recorded", 1),
        (("action", 1), "after policy step 1: the action of control step 2 was not recorded", 1),
        (("action", 3), "after policy step 2: the action of control step 4 was not recorded", 2),
    ],
)
def test_what_the_recorder_missed_is_told(film: Film, skip: tuple[str, int], words: str, steps: int) -> None:
    chunked_goal(film, 0, skip=(skip,))
    chunked_goal(film, 1)
    found = replayed(film.close())
    assert not found.equal
    assert found.different == 0
    assert [text for text in found.missing if words in text] == found.missing != []
    assert found.steps == steps + 2, "the other goal is compared"


def test_every_kind_of_difference_is_named(film: Film) -> None:
    chunked_goal(film)
    recording = film.close()

    policy = Scripted()
    policy.exit_index = 0
    assert "recorded exit after layer 3, replayed after layer 1" in replayed(recording, policy).first
    policy = Scripted()
    policy.values = staticmethod(lambda step, place, pixel=7: [0.5, 0, 0, 0, 0, 0, -1.0])
    found = replayed(recording, policy)
    assert "action 0 of the chunk differs by up to 0.49 (value 0: recorded 0.00999999978, replayed 0.5)" in found.first
    assert found.different == 2
    policy = Scripted()
    policy.info = PolicyInfo("other", (0, 2), STATIC.shape, GRIPPER.shape, horizon=2, weights_sha256="def")
    found = replayed(recording, policy)
    assert not found.equal
    assert "had weights abc; the one here (other) has def" in found.differences[0]


def test_the_recorded_budget_is_set(film: Film) -> None:
    chunked_goal(film, 0, average_llm_gmac=0.5)
    policy = Scripted()
    assert replayed(film.close(), policy).equal
    assert policy.budgets == [Budget(average_llm_gmac=0.5)]


def test_exits_that_were_given_up_as_memory_ran_out_are_not_in_use(film: Film) -> None:
    """The recorded reports have two thresholds, so that two exits were in use."""
    chunked_goal(film)
    policy = Reducible()
    assert replayed(film.close(), policy).equal
    assert policy.limits == [2]


def test_fewer_exits_than_the_policy_has_now_are_put_back(film: Film) -> None:
    chunked_goal(film)
    policy = Reducible()
    policy.exits_in_use = 1
    assert replayed(film.close(), policy).equal
    assert (policy.budgets, policy.exits_in_use) == ([Budget()], 2)


def test_under_a_latency_budget_the_recorded_exit_is_taken(film: Film) -> None:
    """How deep a policy gets in a given time is no property of what it was shown."""
    chunked_goal(film, 0, latency_ms=20.0)
    policy = Scripted()
    policy.exit_index = 0
    found = replayed(film.close(), policy)
    assert (found.pinned, policy.budgets) == (2, [])
    assert found.equal


def test_settings_are_those_that_were_told(film: Film) -> None:
    chunked_goal(film, average_llm_gmac=0.5)
    settings = PolicySettings.of(read_runs(film.close()).goals[0])
    expected = PolicySettings("scripted", "", 1, "float32", 0.0, SHA256, Budget(average_llm_gmac=0.5))
    assert settings == expected


def test_a_camera_that_was_started_anew_is_refused(film: Film) -> None:
    chunked_goal(film, 3)
    film.frame(10**9)
    with pytest.raises(ConfigError, match=r"go back from 4\.133 to 1\.000 s"):
        read_runs(film.close())


def test_a_recording_without_goals_is_nothing_to_replay(film: Film, capsys) -> None:
    film.frame(10**9)
    film.close()
    assert main(["replay", str(film.path)]) == 1
    assert "nothing to compare" in capsys.readouterr().out
