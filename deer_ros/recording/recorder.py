"""Listens to the topics of a running graph, without looking into the messages, and hands them to a writer."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.recording import offers
from deer_ros.recording.bag_folder import TopicEntry
from deer_ros.recording.parameter_reading import ParameterReading
from deer_ros.recording.writing import RecordingWriter

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile

LOOK_PERIOD_S = 0.2
"""How often new topics and nodes are looked for."""
TOPICS = (
    *(graph.STATIC_IMAGE, graph.GRIPPER_IMAGE, graph.JOINT_STATES, graph.INSTRUCTION),
    *(graph.POLICY_GOAL, graph.POLICY_INPUT, graph.POLICY_ACTION, graph.EXIT_REPORT),
    *(graph.ARM_TWIST, graph.ARM_TRAJECTORY, graph.GRIPPER_COMMAND, graph.SAFETY_STATE, graph.SUBTASK_DONE),
    *(graph.OPERATOR_TWIST, graph.OPERATOR_GRIPPER, graph.E_STOP),
    *(graph.CLOCK, graph.DIAGNOSTICS, "/rosout", "/parameter_events", graph.TF, graph.TF_STATIC),
    *(graph.STATIC_CAMERA_INFO, graph.GRIPPER_CAMERA_INFO),
)
"""What is recorded unless told otherwise; relative names are in the namespace of the graph."""


@dataclass(frozen=True)
class Choice:
    """Which topics are recorded.

    Attributes:
        namespace: of the graph, such as 'robot1'; empty for none.
        more: names beside `TOPICS`, relative or absolute.
        everything: every topic there is; otherwise `TOPICS` and `more`.
    """

    namespace: str = ""
    more: tuple[str, ...] = ()
    everything: bool = False

    def wants(self, topic: str) -> bool:
        """Whether a topic of this full name is recorded."""
        return self.everything or topic in self.names

    @property
    def names(self) -> frozenset[str]:
        """Full names of the chosen topics."""
        return frozenset(resolved(name, self.namespace) for name in (*TOPICS, *self.more))


def resolved(name: str, namespace: str) -> str:
    """The full name of a topic: an absolute one as it is, a relative one in the namespace."""
    if name.startswith("/"):
        return name
    inner = namespace.strip("/")
    return f"/{inner}/{name}" if inner else f"/{name}"


def message_class(kind: str) -> Any:
    """The Python class of a type such as 'sensor_msgs/msg/Image'. Raises ConfigError if its package is not there."""
    package, _, name = kind.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"type {kind} is not installed: {error}; install the package {package}") from error


@dataclass
class _Topic:
    """A topic that is being recorded."""

    entry: TopicEntry
    quality: QoSProfile
    subscription: Any = None
    newest: dict[bytes, int] = field(default_factory=dict)
    """The last count of each publisher."""


class Recorder:
    """Subscribes to the chosen topics as they appear, and asks every node for its parameters.

    Args:
        node: that listens; its executor runs everything.
        writer: takes the messages.
        choice: of topics.
    """

    def __init__(self, node: Node, writer: RecordingWriter, choice: Choice) -> None:
        from rclpy.clock import Clock, ClockType

        self.lost = 0
        self.failure: ConfigError | None = None
        self._node = node
        self._writer = writer
        self._choice = choice
        self._topics: dict[str, _Topic] = {}
        self._ignored: dict[str, str] = {}
        self._parameters = ParameterReading(node, writer)
        node.create_timer(LOOK_PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._look()

    @property
    def entries(self) -> list[TopicEntry]:
        """The topics so far."""
        return [topic.entry for topic in self._topics.values()]

    @property
    def hears_graph(self) -> bool:
        """Whether a topic was found that only this stack has, or one that was asked for."""
        own = {
            resolved(name, self._choice.namespace)
            for name in (*TOPICS[: TOPICS.index(graph.CLOCK)], *self._choice.more)
        }
        return not own.isdisjoint(self._topics)

    @property
    def ignored(self) -> dict[str, str]:
        """Topics that can't be recorded, with the reason."""
        return dict(self._ignored)

    def _look(self) -> None:
        try:
            for name, kinds in self._node.get_topic_names_and_types():
                if self._choice.wants(name) and name not in self._ignored:
                    self._look_at(name, kinds)
            self._parameters.look()
            self._writer.flush()
        except ConfigError as error:
            self.failure = error

    def _look_at(self, name: str, kinds: list[str]) -> None:
        publishers = self._node.get_publishers_info_by_topic(name)
        if not publishers:
            return
        if len(kinds) > 1:
            self._ignored[name] = f"it has several types: {', '.join(kinds)}"
            return
        offered = [publisher.qos_profile for publisher in publishers]
        quality = offers.request(kinds[0], offered)
        topic = self._topics.get(name)
        if topic is None:
            try:
                self._begin(name, kinds[0], str(publishers[0].topic_type_hash), offered, quality)
            except ConfigError as error:
                self._ignored[name] = str(error)
        elif topic.quality != quality:
            # Another publisher has come that offers less, or the one that did has gone.
            self._node.destroy_subscription(topic.subscription)
            self._subscribe(topic, quality)

    def _begin(self, name: str, kind: str, type_hash: str, offered: list[QoSProfile], quality: QoSProfile) -> None:
        message_class(kind)
        described = offers.described(offered)
        channel = self._writer.channel(name, kind, offers.as_text(described), type_hash)
        topic = _Topic(TopicEntry(name, kind, type_hash, described, channel), quality)
        self._topics[name] = topic
        self._subscribe(topic, quality)

    def _subscribe(self, topic: _Topic, quality: QoSProfile) -> None:
        topic.quality = quality
        topic.subscription = self._node.create_subscription(
            message_class(topic.entry.kind), topic.entry.name, partial(self._receive, topic), quality, raw=True
        )

    def _receive(self, topic: _Topic, data: bytes, info: Any) -> None:
        sequence = info["publication_sequence_number"] or 0
        publisher = info["publisher_gid"]
        if sequence and publisher:
            gid = bytes(publisher["data"])
            self.lost += max(sequence - topic.newest.get(gid, sequence - 1) - 1, 0)
            topic.newest[gid] = sequence
        received_ns = info["received_timestamp"] or time.time_ns()
        published_ns = info["source_timestamp"] or received_ns
        try:
            self._writer.write(topic.entry.channel, data, received_ns, published_ns, sequence)
        except ConfigError as error:
            self.failure = error
