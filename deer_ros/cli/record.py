"""`deer record`: records the topics of a running graph into an MCAP file, until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_ros.recording.bag_folder import TopicEntry
    from deer_ros.recording.reading import Recording
    from deer_ros.recording.session import Progress
    from deer_ros.recording.writing import RecordingWriter

HELP = "record the running graph to MCAP, for Foxglove, ros2 bag, `deer replay` and `deer dataset from-recording`"
DISTRIBUTIONS = ("mcap", "ros-deer-msgs", "tokenizers", "safetensors")
"""Whose versions are noted beside the usual ones."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="file to write, NAME.mcap; without suffix a folder as `ros2 bag` has it"
    )
    parser.add_argument("--namespace", default="", help="namespace of the graph")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="topics beside the usual ones")
    parser.add_argument("--all", action="store_true", help="record every topic there is")
    parser.add_argument("--domain-id", type=int, help="ROS domain to join (default: ROS_DOMAIN_ID, else 0)")
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="end by itself after this long")
    parser.add_argument("--compression", choices=("zstd", "lz4", "none"), default="zstd", help="of the file's chunks")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--recover", type=Path, metavar="FILE", help="don't record: copy what a damaged recording still holds to OUT"
    )


def run(arguments: argparse.Namespace) -> int:
    """Records until a signal or the duration ends it; 1 if nothing came in."""
    from deer_policies.errors import ConfigError
    from deer_ros.recording.bag_folder import message_file, write_metadata
    from deer_ros.recording.reading import Recording
    from deer_ros.recording.writing import RecordingWriter

    if arguments.duration is not None and not arguments.duration > 0.0:
        raise ConfigError(f"--duration is {arguments.duration}; it must be more than 0 seconds")
    file = message_file(arguments.out)
    source = None if arguments.recover is None else Recording(arguments.recover)
    if source is not None and file.exists() and any(other.samefile(file) for other in source.files):
        raise ConfigError(f"{file} can't be recovered into itself; name another file")
    with RecordingWriter(file, arguments.force, arguments.compression) as writer:
        topics = _record(arguments, writer) if source is None else _recover(source, writer)
    if file != arguments.out:
        write_metadata(file, writer, topics)
    print(f"{writer.messages} messages of {len(topics)} topics, {writer.bytes_written / 1e6:.1f} MB in {file}")
    return 0 if writer.messages else 1


def _record(arguments: argparse.Namespace, writer: RecordingWriter) -> list[TopicEntry]:
    from deer_ros.cli.provenance import commit, versions
    from deer_ros.cli.up import domain_from_environment
    from deer_ros.recording.recorder import Choice
    from deer_ros.recording.session import record

    domain_id = domain_from_environment() if arguments.domain_id is None else arguments.domain_id
    origin = {"began": datetime.now(UTC).isoformat(), "domain_id": str(domain_id), "commit": commit()}
    writer.metadata("deer_ros", origin | {f"version of {name}": text for name, text in versions(DISTRIBUTIONS).items()})
    choice = Choice(arguments.namespace, tuple(arguments.topics), arguments.all)
    print(f"recording on ROS_DOMAIN_ID={domain_id} to {writer.path}; Ctrl-C ends it", flush=True)
    recorder = record(writer, choice, domain_id, arguments.duration, _Tell())
    if sys.stdout.isatty():
        print()
    for name, reason in recorder.ignored.items():
        print(f"{name} was not recorded: {reason}")
    if recorder.lost:
        print(f"{recorder.lost} messages were lost on the way here")
    silent = sorted(choice.names - {entry.name for entry in recorder.entries})
    if silent and not arguments.all:
        print(f"nobody published {', '.join(silent)}")
    return recorder.entries


def _recover(source: Recording, writer: RecordingWriter) -> list[TopicEntry]:
    from deer_ros.recording.copying import recover

    topics = recover(source, writer)
    print(source.cut_short or f"{source.path} was whole")
    return topics


class _Tell:
    """One line a second, on a terminal always the same line; and one when everything has been found."""

    def __init__(self) -> None:
        self._ready = False
        self._ends = ("\r", "") if sys.stdout.isatty() else ("", "\n")

    def __call__(self, progress: Progress) -> None:
        begin, end = self._ends
        if progress.settled and not self._ready:
            self._ready = True
            print(f"{begin}ready: {progress.topics} topics are being recorded", flush=True)
        text = (
            f"{progress.elapsed_s:6.0f} s: {progress.messages} messages of {progress.topics} topics, "
            f"{progress.size_bytes / 1e6:.1f} MB, {progress.lost} lost"
        )
        print(f"{begin}{text}", end=end, flush=True)
