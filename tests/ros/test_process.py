"""What a node's process answers when it can't start, and when a signal comes while it ends."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from rclpy.impl.implementation_singleton import rclpy_implementation

from deer_ros.lifecycle import ManagedNode


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
