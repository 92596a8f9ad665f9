"""A process of a node: how it ends when it can't start or by a signal, its memory, and the events that it hears of."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from std_msgs.msg import Empty

from deer_ros.bringup import free_domain_id
from deer_ros.lifecycle import EVENT_PERIOD_S, ManagedNode
from deer_ros.quality import LATCHED


def test_arguments_that_ros_can_not_read_are_an_error():
    command = [sys.executable, "-m", "deer_ros.nodes.safety_node", "--ros-args", "--params-file", "/there/is/none.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


class Talking(ManagedNode):
    """Has something to say at its end, which fails."""

    def __init__(self, context):
        self.active, self.released, self.told = True, False, context

    @property
    def context(self):
        return self.told

    def halt(self, reason):
        raise rclpy_implementation.RCLError("publisher's context is invalid")

    def release(self):
        self.released = True


@pytest.mark.parametrize("lost", [True, False])
def test_only_a_signal_between_asking_and_saying_is_no_error(monkeypatch, lost):
    monkeypatch.setattr("rclpy.lifecycle.Node.destroy_node", lambda self: None)
    answers = iter([True, not lost])
    node = Talking(SimpleNamespace(ok=lambda: next(answers)))
    if lost:
        node.destroy_node()
    else:
        with pytest.raises(rclpy_implementation.RCLError):
            node.destroy_node()
    assert node.released is lost


def test_memory_of_images_is_kept_for_the_next_ones():
    """Fresh pages for each image would be 256 faults of it."""
    code = """
import os, resource, sys
from deer_ros import process
if sys.argv[1] == "kept":
    process._keep_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        images = [bytearray(1 << 20) for _ in range(4)]
        del images
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", code]
    kept, fresh = (
        int(subprocess.run([*command, name], capture_output=True, text=True, timeout=60, check=True).stdout)
        for name in ("kept", "fresh")
    )
    assert kept < 1000 < fresh


class Listening(ManagedNode):
    """Hears of publishers whose quality of service does not fit."""

    def __init__(self, told):
        super().__init__("listening")
        callbacks = SubscriptionEventCallbacks(incompatible_qos=told.append, use_default_callbacks=False)
        self.create_subscription(Empty, "words", print, LATCHED, event_callbacks=callbacks)

    def release(self):
        pass


def test_events_are_looked_at_now_and_then():
    rclpy.init(domain_id=free_domain_id())
    try:
        told = []
        node, executor = Listening(told), SingleThreadedExecutor()
        executor.add_node(node)
        other = rclpy.create_node("other")
        other.create_publisher(Empty, "words", 1)
        looks, deadline = [], time.monotonic() + 5 * EVENT_PERIOD_S
        while not told and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
            looks.append(bool(list(node.waitables)))
        assert told
        for _ in range(20):
            executor.spin_once(timeout_sec=0.02)
            looks.append(bool(list(node.waitables)))
        assert not all(looks)
        executor.shutdown()
        other.destroy_node()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
