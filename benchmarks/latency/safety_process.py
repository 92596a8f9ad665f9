"""The safety node with a trace: when an action comes in, and which command goes out for it."""

from __future__ import annotations

from deer_msgs.msg import PolicyAction

from deer_ros.conversions import stamp_to_ns
from deer_ros.nodes.arm_output import ArmCommand, ArmOutput
from deer_ros.nodes.safety_node import SafetyNode
from deer_ros.process import run
from latency.trace import Trace


class TracedOutput:
    """Notes each command with the frame that it answers; 0 for those between two actions."""

    def __init__(self, output: ArmOutput, trace: Trace) -> None:
        self._output = output
        self._trace = trace
        self.frame_us = 0

    def send(self, command: ArmCommand) -> None:
        """Sends the command."""
        self._output.send(command)
        self._trace.note("sent", self.frame_us, stamp_to_ns(command.stamp))

    def close(self) -> None:
        """Closes the output."""
        self._output.close()


class TracedSafetyNode(SafetyNode):
    """The node as it is, with notes beside it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        super().__init__()

    def set_up(self) -> None:
        """Puts the notes between the gate and the arm."""
        super().set_up()
        assert self._arm_output is not None
        self._traced = self._arm_output = TracedOutput(self._arm_output, self._trace)

    def _on_action(self, message: PolicyAction) -> None:
        frame_us = stamp_to_ns(message.header.stamp) // 1000
        self._trace.note("arrived", frame_us)
        self._traced.frame_us = frame_us
        super()._on_action(message)
        self._traced.frame_us = 0


def main() -> int:
    """Runs the node as a process and writes its trace."""
    trace = Trace()
    try:
        return run(lambda: TracedSafetyNode(trace))
    finally:
        trace.write("safety")


if __name__ == "__main__":
    raise SystemExit(main())
