"""Copies what can be read of a damaged recording into a whole one."""

from __future__ import annotations

from typing import Any

from deer_ros.recording.bag_folder import TopicEntry
from deer_ros.recording.reading import Recording
from deer_ros.recording.writing import RecordingWriter


def recover(recording: Recording, writer: RecordingWriter) -> list[TopicEntry]:
    """Writes every readable message and metadata record; returns the topics. `recording.cut_short` tells the damage.

    Raises:
        ConfigError: if the source is no recording of ROS 2 messages.
    """
    entries: dict[str, TopicEntry] = {}
    for message in recording.messages():
        entry = entries.get(message.topic)
        if entry is None:
            topic = recording.topics[message.topic]
            offered, type_hash = (topic.details.get(name, "") for name in ("offered_qos_profiles", "topic_type_hash"))
            channel = writer.channel(topic.name, topic.kind, offered, type_hash, topic.definition)
            entry = entries[topic.name] = TopicEntry(topic.name, topic.kind, type_hash, _qualities(offered), channel)
        writer.write(entry.channel, message.data, message.log_ns, message.publish_ns, message.sequence)
    for name, values in recording.metadata.items():
        writer.metadata(name, values)
    return list(entries.values())


def _qualities(text: str) -> list[dict[str, Any]]:
    import yaml

    entries = yaml.safe_load(text) if text else []
    return entries if isinstance(entries, list) else []
