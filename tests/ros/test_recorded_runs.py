"""What is made of a recording: goals with their steps, demonstrations with and without a policy; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mcap_ros2")
pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from deer_msgs.msg import ExitReport, GoalStatus, PolicyAction, PolicyInput, SubtaskDone
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ActionChunk, Budget, PolicyInfo
from deer_policies.interfaces import ExitReport as Report
from deer_ros import graph
from deer_ros.cli.main import main
from deer_ros.control.arm import ArmParameters
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.conversions import ns_to_stamp, rgb_to_image
from deer_ros.recording.demonstrations import MEASURED, POLICY, demonstrations
from deer_ros.recording.reading import Recording
from deer_ros.recording.replaying import Comparison, PolicySettings, replay
from deer_ros.recording.runs import read_runs
from deer_ros.recording.spans import spans
from deer_ros.recording.writing import RecordingWriter
from deer_sim.dataset import CalvinDataset

PERIOD_NS = 33_333_333
HOME = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
ARM = ArmParameters()
STATIC, GRIPPER = np.full((6, 6, 3), 7, np.uint8), np.full((4, 4, 3), 9, np.uint8)
SHA256 = "abc"


class Film:
    """Writes a recording message by message; its clock is that of the frames."""

    def __init__(self, path: Path, namespace: str = "") -> None:
        self.writer = RecordingWriter(path)
        self.path = path
        self.now_ns = 10**9
        self._namespace = namespace
        self._channels: dict[str, int] = {}

    def say(self, name: str, message) -> None:
        package = type(message).__module__.split(".")[0]
        topic = name if name.startswith("/") else f"{self._namespace}/{name}"
        if topic not in self._channels:
            self._channels[topic] = self.writer.channel(topic, f"{package}/msg/{type(message).__name__}", "")
        data = bytes(serialize_message(message))
        self.writer.write(self._channels[topic], data, 10**18 + self.now_ns, 10**18 + self.now_ns)
        self.now_ns += 1000

    def frame(self, stamp_ns: int, joints=HOME, opening: float = 0.08, gripper_late_ns: int = 0, static=STATIC) -> None:
        self.now_ns = max(self.now_ns, stamp_ns)
        state = JointState(name=[*ARM.joint_names, *ARM.finger_joint_names])
        state.position = [*map(float, joints), opening / 2, opening / 2]
        state.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.JOINT_STATES, state)
        self.say(graph.GRIPPER_IMAGE, rgb_to_image(GRIPPER, ns_to_stamp(stamp_ns + gripper_late_ns), ""))
        self.say(graph.STATIC_IMAGE, rgb_to_image(static, ns_to_stamp(stamp_ns), ""))

    def goal(self, name: bytes, outcome: int, stamp_ns: int, steps: int = 0, **more) -> None:
        message = GoalStatus(goal_id=list(name), outcome=outcome, instruction="go", steps=steps, max_steps=99, **more)
        message.policy, message.weights_sha256, message.precision, message.threads = "scripted", SHA256, "float32", 1
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.POLICY_GOAL, message)

    def shown(self, name: bytes, stamp_ns: int, gripper: float = 1.0, joints=HOME, **more) -> None:
        felt = np.array([*np.concatenate(ARM.geometry.tcp_pose(joints)), 0.08, *joints, gripper], np.float32)
        late_ns = more.pop("gripper_late_ns", 0)
        message = PolicyInput(goal_id=list(name), proprioception=felt, **more)
        message.header.stamp = message.joints_stamp = ns_to_stamp(stamp_ns)
        message.gripper_stamp = ns_to_stamp(stamp_ns + late_ns)
        self.say(graph.POLICY_INPUT, message)

    def action(self, name: bytes, stamp_ns: int, step: int, values, place: int = 0) -> None:
        message = PolicyAction(goal_id=list(name), step=step, chunk_index=place, action=np.array(values, np.float32))
        message.header.stamp = ns_to_stamp(stamp_ns) if stamp_ns else Time()
        self.say(graph.POLICY_ACTION, message)

    def report(self, stamp_ns: int, step: int, exit_index: int = 1) -> None:
        message = ExitReport(step=step, exit_index=exit_index, exit_layer=exit_index * 2, exit_count=2)
        message.distances, message.thresholds = [0.5], [0.6, 1e8]
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.EXIT_REPORT, message)

    def done(self, stamp_ns: int, task: str = "open_drawer") -> None:
        message = SubtaskDone(task=task)
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.SUBTASK_DONE, message)

    def close(self) -> Recording:
        self.writer.close()
        return Recording(self.path)


class Scripted:
    """Answers with two actions: the number of its step in hundredths, and what it was shown in the pixel."""

    def __init__(self) -> None:
        self.info = PolicyInfo("scripted", (0, 2), STATIC.shape, GRIPPER.shape, horizon=2, weights_sha256=SHA256)
        self.budget = Budget()
        self.budgets: list[Budget] = []
        self.exit_index = 1

    def set_budget(self, budget: Budget) -> None:
        self.budget = budget
        self.budgets.append(budget)

    def initial_state(self) -> int:
        return 0

    def step(self, observation, state):
        rows = [self.values(state + 1, place, int(observation.rgb_static[0, 0, 0])) for place in range(2)]
        report = Report(self.exit_index, self.exit_index * 2, (0.5,), (0.6, 1e8), 1.0, 2.0, 3.0, 4.0, 0.1)
        return ActionChunk(np.array(rows, np.float32)), state + 1, report

    @staticmethod
    def values(step: int, place: int, pixel: int = 7) -> list[float]:
        return [0.01 * step, 0.1 * place, pixel / 255, 0, 0, 0, -1.0]


class Reducible(Scripted):
    """Has three exits and can do without the deeper ones."""

    def __init__(self) -> None:
        super().__init__()
        self.exits_in_use = 3
        self.limits: list[int] = []

    def set_budget(self, budget: Budget) -> None:
        super().set_budget(budget)
        self.exits_in_use = 3

    def limit_exits(self, count: int) -> None:
        self.exits_in_use = count
        self.limits.append(count)


def frames_of(goal: int, count: int) -> list[int]:
    return [(goal + 1) * 10**9 + index * PERIOD_NS for index in range(count)]


def chunked_goal(
    film: Film, number: int = 0, outcome: int = GoalStatus.DONE, skip=(), late_ns: int = 0, **budget
) -> None:
    """A goal of four control steps in two chunks; `skip` names messages that the recorder missed."""
    name, stamps = bytes([number]) * 16, frames_of(number, 5)
    film.goal(name, GoalStatus.RUNNING, stamps[0] - PERIOD_NS)
    for index, stamp in enumerate(stamps[:4]):
        step, place = index // 2 + 1, index % 2
        if ("frame", index) not in skip:
            film.frame(stamp, gripper_late_ns=late_ns)
        if place == 0 and ("input", index) not in skip:
            film.shown(name, stamp, gripper=1.0 if index == 0 else -1.0, gripper_late_ns=late_ns, **budget)
        if ("action", index) not in skip:
            film.action(name, stamp, index + 1, Scripted.values(step, place), place)
            film.action(name, stamp, index + 1, Scripted.values(step, place), place)
        if place == 0 and ("report", index) not in skip:
            film.report(stamp, index + 1)
    film.done(stamps[4])
    film.action(name, 0, 4, [0, 0, 0, 0, 0, 0, -1])
    film.goal(name, outcome, stamps[3], steps=4, reason="open_drawer is done")
    film.frame(stamps[4], gripper_late_ns=late_ns)


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


def test_a_recording_without_goals_is_nothing_to_replay(film: Film, capsys) -> None:
    film.frame(10**9)
    film.close()
    assert main(["replay", str(film.path)]) == 1
    assert "nothing to compare" in capsys.readouterr().out
