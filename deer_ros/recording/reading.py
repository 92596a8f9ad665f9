"""Reads recordings of ROS 2 messages in MCAP, whoever wrote them, as far as they can be read; no ROS is needed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_policies.errors import ConfigError

if TYPE_CHECKING:
    from mcap.records import Channel, Schema

_ENCODING = "cdr"
_SCHEMA_ENCODING = "ros2msg"


@dataclass(frozen=True)
class RecordedMessage:
    """A message as it was recorded.

    Attributes:
        topic: full name.
        kind: its type, such as 'sensor_msgs/msg/Image'.
        log_ns, publish_ns: when it was received and published, nanoseconds since 1970.
        data: CDR.
        sequence: the publisher's count, 0 if unknown.
    """

    topic: str
    kind: str
    log_ns: int
    publish_ns: int
    data: bytes
    sequence: int
    _decode: Callable[[bytes], Any]

    @property
    def content(self) -> Any:
        """The message, with the fields of its definition. Raises ConfigError if data and definition do not fit."""
        try:
            return self._decode(self.data)
        except (ValueError, struct.error, IndexError, UnicodeDecodeError, NotImplementedError) as error:
            raise ConfigError(f"a message of {self.topic} ({self.kind}) can't be decoded: {error}") from error

    @property
    def stamp_ns(self) -> int:
        """Stamp of a message that begins with a std_msgs/Header, without decoding the rest."""
        order = "<" if len(self.data) > 1 and self.data[1] & 1 else ">"
        if len(self.data) < 12:
            raise ConfigError(f"a message of {self.topic} has {len(self.data)} bytes; that holds no header")
        seconds, rest = struct.unpack_from(f"{order}iI", self.data, 4)
        return int(seconds) * 1_000_000_000 + int(rest)


@dataclass(frozen=True)
class RecordedTopic:
    """A topic as it was recorded: name, type, text of the definition, and what rosbag2 writes beside."""

    name: str
    kind: str
    definition: str
    details: dict[str, str]


class Recording:
    """A recording: an MCAP file, or the folder of a bag with such files.

    Attributes:
        files: in order.
        metadata: records of texts by name, as far as `messages` has read.
        cut_short: why the last reading ended before the end of a file; empty if it did not.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if there is no such recording."""
        self.path = path
        self.files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        self.metadata: dict[str, dict[str, str]] = {}
        self.topics: dict[str, RecordedTopic] = {}
        self.cut_short = ""
        if not self.files or not all(file.is_file() for file in self.files):
            raise ConfigError(f"{path} is no recording: name an .mcap file, or a folder that holds some")

    def messages(self) -> Iterator[RecordedMessage]:
        """All messages in the order in which they were written.

        What a killed or failed recorder left behind is read up to the last whole chunk, and `cut_short` says so.

        Raises:
            ConfigError: if a file is none in MCAP, or its messages are none of ROS 2 with definitions of this form.
        """
        self.cut_short = ""
        for file in self.files:
            yield from self._file(file)

    def _file(self, file: Path) -> Iterator[RecordedMessage]:
        from mcap.exceptions import McapError
        from mcap.stream_reader import CRCValidationError, StreamReader

        with file.open("rb") as stream:
            if stream.read(5) != b"\x89MCAP":
                raise ConfigError(f"{file} is no MCAP file")
            stream.seek(0)
            reader = _FileReader(self, file)
            records = iter(StreamReader(stream, validate_crcs=True).records)
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    return
                except (McapError, CRCValidationError, struct.error, zlib.error, ValueError, RuntimeError) as error:
                    self.cut_short = (
                        f"{file} can be read up to byte {stream.tell()} of {file.stat().st_size} only "
                        f"({type(error).__name__}): its recorder was killed, or the file is damaged"
                    )
                    return
                message = reader.take(record)
                if message is not None:
                    yield message


class _FileReader:
    """Schemas, channels and decoders of one file."""

    def __init__(self, recording: Recording, file: Path) -> None:
        from mcap_ros2.decoder import DecoderFactory

        self._recording = recording
        self._file = file
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, tuple[Channel, Schema]] = {}
        self._decoders = DecoderFactory()

    def take(self, record: Any) -> RecordedMessage | None:
        """Notes what a record declares; returns it if it is a message."""
        from mcap.records import Channel, Message, Metadata, Schema

        if isinstance(record, Message):
            channel, schema = self._channels[record.channel_id]
            return RecordedMessage(
                channel.topic,
                schema.name,
                record.log_time,
                record.publish_time,
                record.data,
                record.sequence,
                lambda data: self._decode(schema, data),
            )
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel):
            self._declare(record)
        elif isinstance(record, Metadata):
            self._recording.metadata[record.name] = dict(record.metadata)
        return None

    def _declare(self, channel: Channel) -> None:
        schema = self._schemas.get(channel.schema_id)
        if channel.message_encoding != _ENCODING or schema is None or schema.encoding != _SCHEMA_ENCODING:
            found = f"{channel.message_encoding} with {schema.encoding if schema else 'no'} definitions"
            raise ConfigError(
                f"{self._file}: topic {channel.topic} holds {found}; only {_ENCODING} with {_SCHEMA_ENCODING} is read: "
                "record with `deer record` or `ros2 bag record -s mcap`"
            )
        self._channels[channel.id] = (channel, schema)
        text = schema.data.decode("utf-8", "replace")
        self._recording.topics[channel.topic] = RecordedTopic(channel.topic, schema.name, text, dict(channel.metadata))

    def _decode(self, schema: Schema, data: bytes) -> Any:
        decode = self._decoders.decoder_for(_ENCODING, schema)
        assert decode is not None
        return decode(data)
