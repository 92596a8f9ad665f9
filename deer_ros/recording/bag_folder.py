"""The folder that `ros2 bag` calls a bag: one file of messages and a metadata.yaml that says what is in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_ros.recording.writing import RecordingWriter

METADATA = "metadata.yaml"
VERSION = 9
"""Of rosbag2's metadata; see ros2/rosbag2, rosbag2_storage/metadata_io."""


@dataclass(frozen=True)
class TopicEntry:
    """A topic of a bag: its name, type, the hash of the type, the qualities offered, and its number in the writer."""

    name: str
    kind: str
    type_hash: str
    offered_qos: Sequence[dict[str, Any]]
    channel: int


def message_file(out: Path) -> Path:
    """Where messages go: `out` itself if it ends in .mcap, else the file in the bag folder of that name.

    Raises:
        ConfigError: for another suffix of a file format.
    """
    if out.suffix == ".mcap":
        return out
    if out.suffix in (".db3", ".bag", ".yaml"):
        raise ConfigError(f"{out} has the suffix {out.suffix}; name a file NAME.mcap, or a folder without suffix")
    return out / f"{out.name}_0.mcap"


def write_metadata(file: Path, writer: RecordingWriter, topics: Sequence[TopicEntry]) -> None:
    """Writes metadata.yaml beside a finished file of messages."""
    import yaml

    first_ns = writer.first_ns or 0
    began = {"nanoseconds_since_epoch": first_ns}
    duration = {"nanoseconds": max(writer.last_ns - first_ns, 0)}
    content = {
        "version": VERSION,
        "storage_identifier": "mcap",
        "duration": duration,
        "starting_time": began,
        "message_count": writer.messages,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.kind,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": list(topic.offered_qos),
                    "type_description_hash": topic.type_hash,
                },
                "message_count": writer.counts[topic.channel],
            }
            for topic in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.name],
        "files": [{"path": file.name, "starting_time": began, "duration": duration, "message_count": writer.messages}],
        "custom_data": None,
        "ros_distro": os.environ.get("ROS_DISTRO", ""),
    }
    text = yaml.safe_dump({"rosbag2_bagfile_information": content}, sort_keys=False)
    (file.parent / METADATA).write_text(text, encoding="utf-8")
