"""Runs a recorder in the ROS graph until a signal or the time ends it, and takes what is still on its way then."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from deer_ros import network
from deer_ros.recording.parameter_reading import OWN_RECORDER
from deer_ros.recording.recorder import Choice, Recorder
from deer_ros.recording.writing import RecordingWriter

PROGRESS_S = 1.0
DRAIN_S = 0.3
"""After the end was asked for, what is on its way is still taken for this long."""
SPIN_S = 0.1
SETTLED_S = 1.0
"""Without a new topic for this long, publishers and recorder know of each other."""


@dataclass(frozen=True)
class Progress:
    """How far a recording is: seconds since it began, messages, size in bytes, lost messages, topics so far, and
    whether the graph was found and no topic has come for a while, so that nothing said from now on is missed."""

    elapsed_s: float
    messages: int
    size_bytes: int
    lost: int
    topics: int
    settled: bool


def record(
    writer: RecordingWriter,
    choice: Choice,
    domain_id: int,
    duration_s: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Recorder:
    """Records until SIGINT or SIGTERM comes or `duration_s` is over; returns the recorder, which knows the topics.

    Args:
        writer: takes everything; it is left open.
        choice: of topics.
        domain_id: ROS domain to join.
        duration_s: seconds; None goes on until a signal comes.
        progress: called once a second.

    Raises:
        ConfigError: if the file can't be written any more.
    """
    network.enter(None)
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"{OWN_RECORDER}_{os.getpid()}", context=context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        recorder = Recorder(node, writer, choice)
        with stop_signals() as stop:
            _spin(executor.spin_once, recorder, writer, stop, duration_s, progress)
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        context.try_shutdown()
    return recorder


def _spin(
    spin_once: Callable[[float], None],
    recorder: Recorder,
    writer: RecordingWriter,
    stop: threading.Event,
    duration_s: float | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    began = told = grown = time.monotonic()
    topics = 0
    end = began + duration_s if duration_s is not None else float("inf")
    drained = float("inf")
    while (now := time.monotonic()) < drained:
        if (stop.is_set() or now >= end) and drained == float("inf"):
            drained = now + DRAIN_S
        spin_once(SPIN_S)
        if recorder.failure is not None:
            raise recorder.failure
        if len(recorder.entries) != topics:
            topics, grown = len(recorder.entries), now
        if progress and now - told >= PROGRESS_S:
            told = now
            settled = recorder.hears_graph and now - grown >= SETTLED_S
            progress(Progress(now - began, writer.messages, writer.bytes_written, recorder.lost, topics, settled))


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of what they do otherwise; only in the main thread."""
    stop = threading.Event()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
