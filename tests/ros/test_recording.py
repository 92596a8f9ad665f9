"""Recordings as files: definitions, what others need to read them, damage; a recorder that counts what it misses."""

from __future__ import annotations

import contextlib
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mcap_ros2")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from std_msgs.msg import Header, String

from deer_policies.errors import ConfigError
from deer_ros.bringup import free_domain_id
from deer_ros.recording import offers
from deer_ros.recording.bag_folder import TopicEntry, message_file, write_metadata
from deer_ros.recording.definitions import SEPARATOR, definition
from deer_ros.recording.reading import Recording
from deer_ros.recording.recorder import Choice, Recorder, resolved
from deer_ros.recording.session import record
from deer_ros.recording.writing import FLUSH_S, RecordingWriter

TEXT = "std_msgs/msg/String"
DEADLINE_S = 10.0
RELIABLE, BEST_EFFORT = (QoSProfile(depth=3, reliability=kind) for kind in (1, 2))


def said(text: str) -> bytes:
    return bytes(serialize_message(String(data=text)))


def write_some(path: Path, count: int = 5, flush_each: bool = False) -> Path:
    with RecordingWriter(path) as writer:
        channel = writer.channel("/words", TEXT, "")
        for index in range(count):
            writer.write(channel, said(f"{index}" * 100), 10**9 + index, 10**9, index)
            if flush_each:
                writer._writer.flush()
    return path


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    rclpy.init(domain_id=free_domain_id())
    made = rclpy.create_node("speaker")
    yield made
    made.destroy_node()
    rclpy.try_shutdown()


def test_a_definition_holds_all_that_it_is_made_of() -> None:
    text = definition("deer_msgs/msg/PolicyInput")
    first, *others = text.split(f"{SEPARATOR}\n")
    assert "float32[15] proprioception" in first
    assert [other.splitlines()[0] for other in others] == ["MSG: std_msgs/Header", "MSG: builtin_interfaces/Time"]
    nested = definition("sensor_msgs/msg/CameraInfo")
    assert "MSG: sensor_msgs/RegionOfInterest\n" in nested
    installed = Path(sys.prefix) / "share" / "std_msgs" / "msg" / "Empty.msg"
    assert definition("std_msgs/msg/Empty") == installed.read_text() + "\n"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("no_such_msgs/msg/Thing", "install the package no_such_msgs"), ("Thing", "not of the form package/msg/Name")],
)
def test_a_definition_that_there_is_not(kind: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        definition(kind)


def test_messages_come_back_as_they_were(tmp_path: Path) -> None:
    path = write_some(tmp_path / "new" / "words.mcap")
    recording = Recording(path)
    messages = list(recording.messages())
    assert [message.content.data for message in messages] == [f"{index}" * 100 for index in range(5)]
    assert [(m.topic, m.kind, m.log_ns, m.publish_ns, m.sequence) for m in messages[1:2]] == [
        ("/words", TEXT, 10**9 + 1, 10**9, 1)
    ]
    assert recording.cut_short == ""
    with pytest.raises(ConfigError, match="is there already"):
        RecordingWriter(path)
    assert write_some_replacing(path) == 2


def write_some_replacing(path: Path) -> int:
    with RecordingWriter(path, force=True, compression="none") as writer:
        channel = writer.channel("/words", TEXT, "")
        for index in range(2):
            writer.write(channel, said("new"), index, index)
    return len(list(Recording(path).messages()))


def test_a_stamp_is_read_without_decoding(tmp_path: Path) -> None:
    header = Header(frame_id="somewhere")
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, 123_456_789
    path = tmp_path / "headers.mcap"
    little = bytes(serialize_message(header))
    big = b"\x00\x00\x00\x00" + struct.pack(">iI", 7, 9) + b"\x00\x00\x00\x01\x00"
    with RecordingWriter(path) as writer:
        channel = writer.channel("/headers", "std_msgs/msg/Header", "")
        for data in (little, big):
            writer.write(channel, data, 1, 1)
    assert [message.stamp_ns for message in Recording(path).messages()] == [1_700_000_000_123_456_789, 7_000_000_009]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_ends_early_is_read_as_far_as_it_goes(tmp_path: Path, share: float) -> None:
    whole = write_some(tmp_path / "whole.mcap", 40, flush_each=True).read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: int(share * len(whole))])
    recording = Recording(cut)
    texts = [message.content.data for message in recording.messages()]
    assert texts == [f"{index}" * 100 for index in range(len(texts))]
    assert 0 < len(texts) <= 40
    assert f"of {cut.stat().st_size} only" in recording.cut_short


def test_a_damaged_chunk_is_not_believed(tmp_path: Path) -> None:
    """The checksum of a chunk tells; what comes before it is read."""
    path = tmp_path / "damaged.mcap"
    with RecordingWriter(path, compression="none") as writer:
        channel = writer.channel("/words", TEXT, "")
        for text in ("good", "flawed"):
            writer.write(channel, said(text), 1, 1)
            writer._writer.flush()
    path.write_bytes(path.read_bytes().replace(b"flawed", b"Flawed", 1))
    recording = Recording(path)
    assert [message.content.data for message in recording.messages()] == ["good"]
    assert "the file is damaged" in recording.cut_short


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.mcap"
    other.write_bytes(b"PK something else")
    with pytest.raises(ConfigError, match="is no MCAP file"):
        list(Recording(other).messages())
    for path in (tmp_path / "absent.mcap", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="is no recording"):
            Recording(path)


def test_the_folder_of_a_bag_tells_what_is_in_it(tmp_path: Path) -> None:
    file = message_file(tmp_path / "bag")
    assert file == tmp_path / "bag" / "bag_0.mcap"
    assert message_file(tmp_path / "bag.mcap") == tmp_path / "bag.mcap"
    with pytest.raises(ConfigError, match="db3"):
        message_file(tmp_path / "bag.db3")
    with RecordingWriter(file) as writer:
        channel = writer.channel("/words", TEXT, "", "RIHS01_00")
        for moment in (5, 25):
            writer.write(channel, said("hi"), moment, moment)
    described = offers.described([RELIABLE, RELIABLE])
    write_metadata(file, writer, [TopicEntry("/words", TEXT, "RIHS01_00", described, channel)])
    found = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (found["message_count"], found["duration"]["nanoseconds"]) == (2, 20)
    topic = found["topics_with_message_count"][0]
    assert topic["message_count"] == 2
    assert topic["topic_metadata"]["name"] == "/words"
    assert [quality["reliability"] for quality in topic["topic_metadata"]["offered_qos_profiles"]] == ["reliable"]


def test_the_recorder_asks_for_what_all_publishers_offer() -> None:
    latched = QoSProfile(depth=1, reliability=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    asked = [offers.request(TEXT, offered) for offered in ([latched], [latched, RELIABLE], [RELIABLE, BEST_EFFORT])]
    assert [quality.reliability for quality in asked] == [
        *(ReliabilityPolicy.RELIABLE, ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
    ]
    assert [quality.durability for quality in asked] == [
        *(DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE, DurabilityPolicy.VOLATILE)
    ]
    assert offers.request("sensor_msgs/msg/Image", [RELIABLE]).depth < asked[0].depth


def test_topics_are_chosen_by_name_and_namespace() -> None:
    assert resolved("policy/action", "robot1") == resolved("policy/action", "/robot1/") == "/robot1/policy/action"
    assert resolved("/clock", "robot1") == "/clock"
    choice = Choice("robot1", ("wrist/force", "/weather"))
    for topic in ("/robot1/camera/static/image_raw", "/clock", "/robot1/wrist/force", "/weather"):
        assert choice.wants(topic), topic
    assert not choice.wants("/camera/static/image_raw")
    assert not choice.wants("/robot1/weather")
    assert Choice(everything=True).wants("/anything")


def listen(executor: SingleThreadedExecutor, condition) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        executor.spin_once(0.05)


def test_lost_messages_are_counted_for_each_publisher(node, tmp_path: Path) -> None:
    publishers = [node.create_publisher(String, "words", RELIABLE) for _ in range(2)]
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with RecordingWriter(tmp_path / "words.mcap") as writer:
        recorder = Recorder(node, writer, Choice(more=("words",)))
        listen(executor, lambda: all(publisher.get_subscription_count() for publisher in publishers))
        for publisher in publishers:
            publisher.publish(String(data="first"))
        listen(
            executor, lambda: sum(entry.name == "/words" for entry in recorder.entries) and count(writer, recorder) == 2
        )
        assert recorder.lost == 0
        burst = offers.QUEUE + 300
        for index in range(burst):
            publishers[0].publish(String(data=f"{index}"))
        publishers[1].publish(String(data="last"))
        listen(executor, lambda: count(writer, recorder) + recorder.lost == burst + 3)
        assert recorder.lost == burst + 1 - offers.QUEUE


def count(writer: RecordingWriter, recorder: Recorder) -> int:
    return sum(writer.counts[entry.channel] for entry in recorder.entries if entry.name == "/words")


def test_what_was_received_is_soon_in_the_file(node, tmp_path: Path) -> None:
    """A single short message, which fills no chunk, while the recorder goes on: so little is lost if it is killed."""
    publisher = node.create_publisher(String, "words", RELIABLE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    path = tmp_path / "words.mcap"
    with RecordingWriter(path) as writer:
        recorder = Recorder(node, writer, Choice(more=("words",)))
        listen(executor, lambda: publisher.get_subscription_count() == 1)
        publisher.publish(String(data="only"))
        listen(executor, lambda: count(writer, recorder) == 1)
        began = time.monotonic()
        listen(
            executor, lambda: [m.content.data for m in Recording(path).messages() if m.topic == "/words"] == ["only"]
        )
        assert time.monotonic() - began < 2 * FLUSH_S


def test_a_publisher_that_offers_less_is_heard_as_well(node, tmp_path: Path) -> None:
    strict = node.create_publisher(String, "words", RELIABLE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with RecordingWriter(tmp_path / "words.mcap") as writer:
        recorder = Recorder(node, writer, Choice(more=("words",)))
        listen(executor, lambda: strict.get_subscription_count() == 1)
        loose = node.create_publisher(String, "words", BEST_EFFORT)
        listen(executor, lambda: loose.get_subscription_count() == 1 and strict.get_subscription_count() == 1)

        def heard() -> bool:
            loose.publish(String(data="loose"))
            return count(writer, recorder) > 0

        listen(executor, heard)


def test_what_can_not_be_recorded_is_told_and_does_not_end_the_rest(node, tmp_path: Path, monkeypatch) -> None:
    def missing(kind: str) -> str:
        raise ConfigError(f"there is no definition of {kind}")

    publisher = node.create_publisher(String, "words", RELIABLE)
    monkeypatch.setattr("deer_ros.recording.writing.definition", missing)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with RecordingWriter(tmp_path / "words.mcap") as writer:
        recorder = Recorder(node, writer, Choice(more=("words",)))
        listen(executor, lambda: "/words" in recorder.ignored)
        assert recorder.failure is None
        assert "there is no definition of std_msgs/msg/String" in recorder.ignored["/words"]
    assert publisher.get_subscription_count() == 0


def test_a_full_disk_ends_the_recording_with_a_message(tmp_path: Path, monkeypatch) -> None:
    writer = RecordingWriter(tmp_path / "words.mcap")
    channel = writer.channel("/words", TEXT, "")
    monkeypatch.setattr("deer_ros.recording.writing.FLUSH_S", 0.0)

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    class Full:
        write, flush = staticmethod(full), staticmethod(lambda: None)

        def __getattr__(self, name: str):
            return getattr(writer._file, name)

    writer._writer._Writer__stream = Full()
    writer.write(channel, said("hi"), 1, 1)
    with pytest.raises(ConfigError, match=r"can't be written any more.*No space left"):
        writer.flush()
    with contextlib.suppress(ConfigError):
        writer.close()


def test_a_session_ends_by_itself_and_asks_for_parameters(node, tmp_path: Path) -> None:
    node.declare_parameter("speed", 0.5)
    node.declare_parameter("names", ["a", "b"])
    publisher = node.create_publisher(String, "instruction", RELIABLE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    told = []

    def progress(found) -> None:
        told.append(found)

    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        with RecordingWriter(tmp_path / "words.mcap") as writer:
            recorder = record(writer, Choice(), node.context.get_domain_id(), 2.5, progress)
        assert [entry.name for entry in recorder.entries if entry.name == "/instruction"]
    finally:
        executor.shutdown()
        thread.join(DEADLINE_S)
    assert told
    assert told[-1].settled
    recording = Recording(tmp_path / "words.mcap")
    list(recording.messages())
    parameters = recording.metadata["parameters /speaker"]
    assert (parameters["speed"], parameters["names"]) == ("0.5", '["a", "b"]')
    assert publisher.topic_name == "/instruction"
