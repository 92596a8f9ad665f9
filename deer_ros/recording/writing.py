"""Writes an MCAP file of ROS 2 messages that is readable up to its last second even if the writer is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from deer_policies.errors import ConfigError
from deer_ros.recording.definitions import definition

COMPRESSIONS = ("zstd", "lz4", "none")
FLUSH_S = 1.0
"""What a killed writer may lose. Shorter chunks compress worse."""


class RecordingWriter:
    """Serialised messages in, chunks out; a context manager.

    Args:
        path: of the file; its folder is made.
        force: whether a file that is there is replaced.
        compression: of chunks, one of `COMPRESSIONS`.

    Raises:
        ConfigError: if the file is there, can't be made, or can't be written any more (then also later).
    """

    def __init__(self, path: Path, force: bool = False, compression: str = "zstd") -> None:
        from mcap.writer import CompressionType, Writer

        if compression not in COMPRESSIONS:
            raise ConfigError(f"compression is {compression!r}; it must be one of {', '.join(COMPRESSIONS)}")
        self.path = path
        self.messages = 0
        self.first_ns: int | None = None
        self.last_ns = 0
        self.counts: dict[int, int] = {}
        self._schemas: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb" if force else "xb")
        except FileExistsError as error:
            raise ConfigError(f"{path} is there already; name another file, or replace it with --force") from error
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error}") from error
        self._writer = Writer(self._file, compression=CompressionType[compression.upper()])
        self._writer.start(profile="ros2", library="deer_ros")
        self._guarded(self._file.flush)
        self._flushed_s = time.monotonic()
        self._closed = False

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def bytes_written(self) -> int:
        """Size of the file so far."""
        return self.path.stat().st_size if self._closed else self._file.tell()

    def channel(self, topic: str, kind: str, offered_qos: str, type_hash: str = "", text: str | None = None) -> int:
        """Declares a topic and its type; returns the number that `write` takes.

        Args:
            topic: its full name.
            kind: such as 'sensor_msgs/msg/Image'.
            offered_qos: YAML text of the publishers' qualities of service, as rosbag2 writes it.
            type_hash: of the type, as rosbag2 writes it.
            text: definition of the type; None takes that of the installed package.
        """
        if kind not in self._schemas:
            text = definition(kind) if text is None else text
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        metadata = {"offered_qos_profiles": offered_qos, "topic_type_hash": type_hash}
        number = self._writer.register_channel(topic, "cdr", self._schemas[kind], metadata)
        self.counts[number] = 0
        return number

    def write(self, channel: int, data: bytes, received_ns: int, published_ns: int, sequence: int = 0) -> None:
        """Adds a serialised message.

        Args:
            channel: from `channel`.
            data: CDR with its encapsulation.
            received_ns, published_ns: nanoseconds since 1970.
            sequence: the publisher's count.
        """
        self._guarded(lambda: self._writer.add_message(channel, received_ns, data, published_ns, sequence % (1 << 32)))
        self.messages += 1
        self.counts[channel] += 1
        self.first_ns = received_ns if self.first_ns is None else min(self.first_ns, received_ns)
        self.last_ns = max(self.last_ns, received_ns)

    def metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Adds a record of texts by name."""
        self._guarded(lambda: self._writer.add_metadata(name, dict(values)))

    def flush(self) -> None:
        """Puts everything so far into the file, if that was not done within the last `FLUSH_S`."""
        if time.monotonic() - self._flushed_s >= FLUSH_S:
            self._guarded(self._writer.flush)
            self._flushed_s = time.monotonic()

    def close(self) -> None:
        """Writes the index and closes the file."""
        if not self._closed:
            self._closed = True
            try:
                self._guarded(self._writer.finish)
            finally:
                self._file.close()

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            raise ConfigError(f"{self.path} can't be written any more: {error}; what it holds can be read") from error
