"""A run of real processes, recorded: others can read it, the policy answers it the same, a dataset comes of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")
pytest.importorskip("torch")
pytest.importorskip("mcap_ros2")

from deer_policies.deer.checkpoint import load, save
from deer_policies.deer.config import PreprocessConfig
from deer_policies.interfaces import Budget
from deer_ros import graph
from deer_ros.bringup import Stack, StackConfig
from deer_ros.cli.calvin_data import CalvinEpisodes
from deer_ros.cli.main import main
from deer_ros.conversions import ns_to_stamp
from deer_ros.quality import COMMANDS
from deer_ros.recording.reading import Recording
from deer_ros.recording.writing import RecordingWriter
from deer_ros.reports import Outcome
from deer_sim.dataset import CalvinDataset
from deer_sim.dataset.checking import check_split
from deer_sim.lerobot.export import export_split

DEADLINE_S = 30.0
STEPS = 12
FEW = Budget(average_llm_gmac=0.012)


class Process:
    """A `deer record` of its own; it has found the graph when this is made."""

    def __init__(self, stack: Stack, out: Path) -> None:
        command = [sys.executable, "-m", "deer_ros.cli.main", "record", str(out)]
        self.told: list[str] = []
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            command, env=stack.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        assert self._ready.wait(DEADLINE_S), self.told

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self._reader.join(DEADLINE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(line)
            if line.startswith("ready"):
                self._ready.set()


def judge_done_after(client, steps: int) -> None:
    """Says once that the drawer is open when a goal has taken some steps, as a person at the table does."""
    from deer_msgs.msg import SubtaskDone

    said = []
    judge = client.node.create_publisher(SubtaskDone, graph.SUBTASK_DONE, COMMANDS)

    def judged(action) -> None:
        if action.step == steps and not said:
            said.append(action)
            message = SubtaskDone(task="open_drawer")
            message.header.stamp = ns_to_stamp(round(action.stamp_s * 1e9) + 1_000_000)
            judge.publish(message)

    client.on_action(judged)
    deadline = time.monotonic() + DEADLINE_S
    while judge.get_subscription_count() < 3:
        assert time.monotonic() < deadline, "policy and recorders do not hear the judge"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def recorded(tiny_checkpoint, tmp_path_factory):
    """A goal with a change of the budget in it that is judged done, and one that runs out of steps; recorded twice.

    One recorder ends properly and writes the folder of a bag, the other one is killed.
    """
    folder = tmp_path_factory.mktemp("recorded")
    config = StackConfig(overrides={"policy": {"policy": str(tiny_checkpoint)}}, log_folder=folder / "logs")
    with Stack(config) as stack:
        recorders = [Process(stack, folder / "bag"), Process(stack, folder / "killed.mcap")]
        try:
            for recorder in recorders:
                recorder.wait_ready()
            client = stack.client
            client.reset(7)
            judge_done_after(client, STEPS)
            goal = client.send("Open the drawer ", on_feedback=None, max_steps=100)
            while goal.feedback.get(timeout=DEADLINE_S).step < STEPS // 2:
                pass
            client.set_budget(FEW)
            assert goal.result(DEADLINE_S).outcome is Outcome.DONE
            time.sleep(1.5)
            assert (
                client.follow("switch on the light", max_steps=STEPS, timeout_s=DEADLINE_S).outcome is Outcome.TIMEOUT
            )
            assert recorders[1].end(signal.SIGKILL) == -signal.SIGKILL
        finally:
            status = recorders[0].end(signal.SIGINT)
            recorders[1].end(signal.SIGKILL)
    assert status == 0, recorders[0].told
    return folder


def counts(path: Path) -> Counter[str]:
    recording = Recording(path)
    return Counter(message.topic for message in recording.messages() if message.content is not None)


def test_the_recording_holds_the_graph_its_parameters_and_its_origin(recorded: Path) -> None:
    found = counts(recorded / "bag")
    steps = found[f"/{graph.POLICY_INPUT}"]
    assert steps >= 2 * STEPS
    assert found[f"/{graph.EXIT_REPORT}"] == steps
    assert found[f"/{graph.POLICY_GOAL}"] == 4
    assert found[f"/{graph.POLICY_ACTION}"] >= steps + 2
    for topic in (graph.STATIC_IMAGE, graph.GRIPPER_IMAGE, graph.JOINT_STATES, graph.ARM_TWIST, graph.GRIPPER_COMMAND):
        assert found[f"/{topic}"] >= steps, topic
    assert {"/clock", "/diagnostics", "/safety/state", "/rosout", "/subtask_done"} <= set(found)

    recording = Recording(recorded / "bag")
    messages = list(recording.messages())
    assert recording.cut_short == ""
    assert recording.metadata["parameters /policy"]["precision"] == '"float32"'
    assert recording.metadata["parameters /simulator"]["scene"] == '"D"'
    assert {"began", "commit", "version of mcap", "version of torch"} <= set(recording.metadata["deer_ros"])
    assert all(0 < message.publish_ns <= message.log_ns for message in messages if message.topic == "/clock")


def test_another_library_reads_the_bag(recorded: Path) -> None:
    """Every message, with the definitions in the file and nothing of ROS; the images are the same."""
    highlevel = pytest.importorskip("rosbags.highlevel")
    ours = {
        (message.topic, message.stamp_ns): bytes(message.content.data)
        for message in Recording(recorded / "bag").messages()
        if message.topic.endswith("image_raw")
    }
    found: Counter[str] = Counter()
    with highlevel.AnyReader([recorded / "bag"]) as reader:
        assert reader.message_count == sum(counts(recorded / "bag").values())
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found[connection.topic] += 1
            if connection.topic.endswith("image_raw"):
                stamp = message.header.stamp
                assert ours[connection.topic, stamp.sec * 1_000_000_000 + stamp.nanosec] == message.data.tobytes()
        goals = next(item for item in reader.connections if item.topic == f"/{graph.POLICY_GOAL}")
        assert goals.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
    assert found == counts(recorded / "bag")


WITHOUT_ROS = """
import sys
ros = ("rclpy", "deer_msgs", "sensor_msgs", "std_msgs", "builtin_interfaces", "rcl_interfaces")
sys.modules.update(dict.fromkeys(ros))
from deer_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_policy_answers_a_recording_the_same(recorded: Path) -> None:
    """In another process, on a machine without ROS."""
    command = [sys.executable, "-c", WITHOUT_ROS, "replay", str(recorded / "bag")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 goals" in done.stdout
    assert "equal bit for bit" in done.stdout
    averages = {
        message.content.average_llm_gmac
        for message in Recording(recorded / "bag").messages()
        if message.topic == f"/{graph.POLICY_INPUT}"
    }
    assert averages == {0.0, FEW.average_llm_gmac}, "the budget was changed in the middle of the first goal"


def test_a_bag_of_another_writer_is_replayed(recorded: Path, tmp_path: Path, capsys) -> None:
    """rosbags writes what it has read of ours, as `ros2 bag record -s mcap` would: without the nodes' parameters."""
    highlevel, rosbag2 = pytest.importorskip("rosbags.highlevel"), pytest.importorskip("rosbags.rosbag2")
    bag = tmp_path / "theirs"
    with (
        highlevel.AnyReader([recorded / "bag"]) as reader,
        rosbag2.Writer(bag, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer,
    ):
        connections = {
            item.id: writer.add_connection(item.topic, item.msgtype, typestore=reader.typestore)
            for item in reader.connections
        }
        for connection, moment, data in reader.messages():
            writer.write(connections[connection.id], moment, data)
    assert main(["replay", str(bag)]) == 0
    told = capsys.readouterr().out
    assert "the default arm is assumed" in told
    assert "equal bit for bit" in told


def copied(source: Path, out: Path, change) -> None:
    """Copies a recording; `change` may return other data for a message, or None to leave it out."""
    recording = Recording(source)
    channels: dict[str, int] = {}
    with RecordingWriter(out) as writer:
        for message in recording.messages():
            data = change(message)
            if message.topic not in channels:
                topic = recording.topics[message.topic]
                channels[message.topic] = writer.channel(topic.name, topic.kind, "", "", topic.definition)
            if data is not None:
                writer.write(channels[message.topic], data, message.log_ns, message.publish_ns)
        for name, values in recording.metadata.items():
            writer.metadata(name, values)


def shown_stamps(path: Path) -> list[int]:
    topic = f"/{graph.POLICY_INPUT}"
    return [message.stamp_ns for message in Recording(path).messages() if message.topic == topic]


def test_a_changed_pixel_is_noticed(recorded: Path, tmp_path: Path, capsys) -> None:
    stamp_ns = shown_stamps(recorded / "bag")[3]

    def change(message):
        if message.topic == f"/{graph.GRIPPER_IMAGE}" and message.stamp_ns == stamp_ns:
            data = bytearray(message.data)
            data[-1000:] = bytes(value ^ 128 for value in data[-1000:])
            return bytes(data)
        return message.data

    copied(recorded / "bag", tmp_path / "changed.mcap", change)
    assert main(["replay", str(tmp_path / "changed.mcap")]) == 1
    told = capsys.readouterr().out
    assert f"first 'Open the drawer', control step 4, frame {stamp_ns / 1e9:.6f} s" in told
    assert "differs by up to" in told


def test_other_weights_are_noticed(recorded: Path, tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    checkpoint = load(tiny_checkpoint)
    for parameter in checkpoint.model.head.parameters():
        parameter.data.mul_(1.01)
    save(tmp_path / "other.safetensors", checkpoint)
    assert main(["replay", str(recorded / "bag"), "--policy", str(tmp_path / "other.safetensors")]) == 1
    told = capsys.readouterr().out
    assert "had weights" in told
    assert "steps differ; first 'Open the drawer', control step 1" in told


def test_a_lost_image_is_told_and_what_follows_in_its_goal_is_not_compared(
    recorded: Path, tmp_path: Path, capsys
) -> None:
    stamps = shown_stamps(recorded / "bag")

    def change(message):
        lost = message.topic == f"/{graph.STATIC_IMAGE}" and message.stamp_ns == stamps[STEPS // 2]
        return None if lost else message.data

    copied(recorded / "bag", tmp_path / "lost.mcap", change)
    assert main(["replay", str(tmp_path / "lost.mcap")]) == 1
    told = capsys.readouterr().out
    assert f"from policy step {STEPS // 2 + 1} of" in told
    assert "its static message was not recorded" in told
    assert "2 goals" in told
    assert "differ;" not in told


def test_a_killed_recorder_leaves_a_readable_file(recorded: Path, tmp_path: Path, capsys) -> None:
    """All but the last second: the first goal ended 1.5 s before, and is there with every step."""
    killed = recorded / "killed.mcap"
    recording = Recording(killed)
    topics = Counter(message.topic for message in recording.messages())
    assert "its recorder was killed" in recording.cut_short
    assert topics[f"/{graph.POLICY_INPUT}"] >= STEPS
    status = main(["replay", str(killed)])
    told = capsys.readouterr().out
    assert "differ;" not in told
    assert status in (0, 1)
    assert main(["record", str(tmp_path / "whole.mcap"), "--recover", str(killed)]) == 0
    whole = Recording(tmp_path / "whole.mcap")
    assert Counter(message.topic for message in whole.messages()) == topics
    assert whole.cut_short == ""
    assert whole.metadata == recording.metadata
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(killed.read_bytes()[: os.path.getsize(killed) // 2])
    assert list(Recording(cut).messages())


def test_a_recording_becomes_a_dataset(recorded: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "data"
    assert main(["dataset", "from-recording", str(recorded / "bag"), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "left out 'switch on the light': it ended TIMEOUT" in told
    split = out / "training"
    report = check_split(split)
    assert report.problems == []
    dataset = CalvinDataset(split)
    assert [(item.instruction, item.task, item.start) for item in dataset.annotations] == [
        ("Open the drawer", "open_drawer", 0)
    ]
    messages = list(Recording(recorded / "bag").messages())
    actions = {
        message.stamp_ns: message.content
        for message in messages
        if message.topic == f"/{graph.POLICY_ACTION}" and message.stamp_ns
    }
    shown = {m.stamp_ns: m.content for m in messages if m.topic == f"/{graph.POLICY_INPUT}"}
    images = {m.stamp_ns: m.content for m in messages if m.topic == f"/{graph.STATIC_IMAGE}"}
    frames = list(dataset.frames(dataset.annotations[0]))
    assert len(frames) >= STEPS
    for frame, stamp_ns in zip(frames, shown_stamps(recorded / "bag"), strict=False):
        np.testing.assert_array_equal(frame["rel_actions"], np.array(actions[stamp_ns].action, np.float32))
        np.testing.assert_array_equal(frame["robot_obs"].astype(np.float32), shown[stamp_ns].proprioception)
        assert frame["rgb_static"].tobytes() == bytes(images[stamp_ns].data)
        assert np.isnan(frame["scene_obs"]).all()
    episodes = CalvinEpisodes(split, ("open_drawer",), PreprocessConfig(image_size=32), tmp_path / "cache")
    episodes.pack(workers=1)
    assert [len(episode.labels) for episode in episodes.load(horizon=1)] == [len(frames)]
    assert export_split(split, tmp_path / "lerobot") == (1, len(frames))


def test_everything_and_the_motion_of_the_tool(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    arguments = ["dataset", "from-recording", str(recorded / "bag"), "--out", str(out), "--all"]
    assert main([*arguments, "--actions", "measured", "--split", "validation"]) == 0
    dataset = CalvinDataset(out / "validation")
    assert [item.instruction for item in dataset.annotations] == ["Open the drawer", "switch on the light"]
    for item in dataset.annotations:
        frames = list(dataset.frames(item))
        moved = np.array([frame["rel_actions"][:3] for frame in frames[:-1]]) * 0.02
        poses = np.array([frame["robot_obs"][:3] for frame in frames])
        slow = (np.abs(moved) < 0.02).all(axis=1)
        assert slow.sum() > STEPS // 2
        np.testing.assert_allclose(np.diff(poses, axis=0)[slow], moved[slow], atol=1e-6)


def test_nothing_is_overwritten_by_accident(recorded: Path, tmp_path: Path, capsys) -> None:
    shutil.copy(recorded / "killed.mcap", tmp_path / "here.mcap")
    assert main(["record", str(tmp_path / "here.mcap"), "--duration", "0.1"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["record", str(tmp_path / "here.mcap"), "--recover", str(tmp_path / "here.mcap"), "--force"]) == 2
    assert (tmp_path / "here.mcap").stat().st_size == (recorded / "killed.mcap").stat().st_size
