"""Recordings as a graph would make them, message by message, and a policy that answers them by a script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mcap_ros2")
pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from deer_msgs.msg import ExitReport, GoalStatus, PolicyAction, PolicyInput, SubtaskDone
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from deer_policies.interfaces import ActionChunk, Budget, PolicyInfo
from deer_policies.interfaces import ExitReport as Report
from deer_ros import graph
from deer_ros.control.arm import ArmParameters
from deer_ros.conversions import ns_to_stamp, rgb_to_image
from deer_ros.recording.reading import Recording
from deer_ros.recording.writing import RecordingWriter

PERIOD_NS = 33_333_333
HOME = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
ARM = ArmParameters()
STATIC, GRIPPER = np.full((6, 6, 3), 7, np.uint8), np.full((4, 4, 3), 9, np.uint8)
SHA256 = "abc"


class Film:
    """Writes a recording message by message; its clock is that of the frames."""

    def __init__(self, path: Path, namespace: str = "") -> None:
        self.writer = RecordingWriter(path)
        self.path = path
        self.now_ns = 10**9
        self._namespace = namespace
        self._channels: dict[str, int] = {}

    def say(self, name: str, message) -> None:
        package = type(message).__module__.split(".")[0]
        topic = name if name.startswith("/") else f"{self._namespace}/{name}"
        if topic not in self._channels:
            self._channels[topic] = self.writer.channel(topic, f"{package}/msg/{type(message).__name__}", "")
        data = bytes(serialize_message(message))
        self.writer.write(self._channels[topic], data, 10**18 + self.now_ns, 10**18 + self.now_ns)
        self.now_ns += 1000

    def frame(self, stamp_ns: int, joints=HOME, opening: float = 0.08, gripper_late_ns: int = 0, static=STATIC) -> None:
        self.now_ns = max(self.now_ns, stamp_ns)
        state = JointState(name=[*ARM.joint_names, *ARM.finger_joint_names])
        state.position = [*map(float, joints), opening / 2, opening / 2]
        state.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.JOINT_STATES, state)
        self.say(graph.GRIPPER_IMAGE, rgb_to_image(GRIPPER, ns_to_stamp(stamp_ns + gripper_late_ns), ""))
        self.say(graph.STATIC_IMAGE, rgb_to_image(static, ns_to_stamp(stamp_ns), ""))

    def goal(self, name: bytes, outcome: int, stamp_ns: int, steps: int = 0, **more) -> None:
        message = GoalStatus(goal_id=list(name), outcome=outcome, instruction="go", steps=steps, max_steps=99, **more)
        message.policy, message.weights_sha256, message.precision, message.threads = "scripted", SHA256, "float32", 1
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.POLICY_GOAL, message)

    def shown(self, name: bytes, stamp_ns: int, gripper: float = 1.0, joints=HOME, **more) -> None:
        felt = np.array([*np.concatenate(ARM.geometry.tcp_pose(joints)), 0.08, *joints, gripper], np.float32)
        late_ns = more.pop("gripper_late_ns", 0)
        message = PolicyInput(goal_id=list(name), proprioception=felt, **more)
        message.header.stamp = message.joints_stamp = ns_to_stamp(stamp_ns)
        message.gripper_stamp = ns_to_stamp(stamp_ns + late_ns)
        self.say(graph.POLICY_INPUT, message)

    def action(self, name: bytes, stamp_ns: int, step: int, values, place: int = 0) -> None:
        message = PolicyAction(goal_id=list(name), step=step, chunk_index=place, action=np.array(values, np.float32))
        message.header.stamp = ns_to_stamp(stamp_ns) if stamp_ns else Time()
        self.say(graph.POLICY_ACTION, message)

    def report(self, stamp_ns: int, step: int, exit_index: int = 1) -> None:
        message = ExitReport(step=step, exit_index=exit_index, exit_layer=exit_index * 2, exit_count=2)
        message.distances, message.thresholds = [0.5], [0.6, 1e8]
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.EXIT_REPORT, message)

    def done(self, stamp_ns: int, task: str = "open_drawer") -> None:
        message = SubtaskDone(task=task)
        message.header.stamp = ns_to_stamp(stamp_ns)
        self.say(graph.SUBTASK_DONE, message)

    def close(self) -> Recording:
        self.writer.close()
        return Recording(self.path)


class Scripted:
    """Answers with two actions: the number of its step in hundredths, and what it was shown in the pixel."""

    def __init__(self) -> None:
        self.info = PolicyInfo("scripted", (0, 2), STATIC.shape, GRIPPER.shape, horizon=2, weights_sha256=SHA256)
        self.budget = Budget()
        self.budgets: list[Budget] = []
        self.exit_index = 1

    def set_budget(self, budget: Budget) -> None:
        self.budget = budget
        self.budgets.append(budget)

    def initial_state(self) -> int:
        return 0

    def step(self, observation, state):
        rows = [self.values(state + 1, place, int(observation.rgb_static[0, 0, 0])) for place in range(2)]
        report = Report(self.exit_index, self.exit_index * 2, (0.5,), (0.6, 1e8), 1.0, 2.0, 3.0, 4.0, 0.1)
        return ActionChunk(np.array(rows, np.float32)), state + 1, report

    @staticmethod
    def values(step: int, place: int, pixel: int = 7) -> list[float]:
        return [0.01 * step, 0.1 * place, pixel / 255, 0, 0, 0, -1.0]


class Reducible(Scripted):
    """Has three exits and can do without the deeper ones."""

    def __init__(self) -> None:
        super().__init__()
        self.exits_in_use = 3
        self.limits: list[int] = []

    def set_budget(self, budget: Budget) -> None:
        super().set_budget(budget)
        self.exits_in_use = 3

    def limit_exits(self, count: int) -> None:
        self.exits_in_use = count
        self.limits.append(count)


def frames_of(goal: int, count: int) -> list[int]:
    return [(goal + 1) * 10**9 + index * PERIOD_NS for index in range(count)]


def chunked_goal(
    film: Film, number: int = 0, outcome: int = GoalStatus.DONE, skip=(), late_ns: int = 0, **budget
) -> None:
    """A goal of four control steps in two chunks; `skip` names messages that the recorder missed."""
    name, stamps = bytes([number]) * 16, frames_of(number, 5)
    film.goal(name, GoalStatus.RUNNING, stamps[0] - PERIOD_NS)
    for index, stamp in enumerate(stamps[:4]):
        step, place = index // 2 + 1, index % 2
        if ("frame", index) not in skip:
            film.frame(stamp, gripper_late_ns=late_ns)
        if place == 0 and ("input", index) not in skip:
            film.shown(name, stamp, gripper=1.0 if index == 0 else -1.0, gripper_late_ns=late_ns, **budget)
        if ("action", index) not in skip:
            film.action(name, stamp, index + 1, Scripted.values(step, place), place)
            film.action(name, stamp, index + 1, Scripted.values(step, place), place)
        if place == 0 and ("report", index) not in skip:
            film.report(stamp, index + 1)
    film.done(stamps[4])
    film.action(name, 0, 4, [0, 0, 0, 0, 0, 0, -1])
    film.goal(name, outcome, stamps[3], steps=4, reason="open_drawer is done")
    film.frame(stamps[4], gripper_late_ns=late_ns)
