"""What a recording tells of the policy's goals: what it was shown at each step, how it answered, and how each ended."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from deer_policies.errors import ConfigError
from deer_policies.interfaces import CONTROL_RATE_HZ
from deer_ros import graph
from deer_ros.control.arm import ArmParameters
from deer_ros.control.goal import GoalOutcome
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.conversions import stamp_to_ns
from deer_ros.recording.parameter_reading import RECORD
from deer_ros.recording.reading import RecordedMessage, Recording
from deer_ros.robot_frame import CHANNELS, JOINTS, STATIC, TOPICS

RESTART_NS = 1_000_000_000
"""Stamps that jump back by more are of a source that was started anew."""
RUNNING = 255
"""`GoalStatus.RUNNING`, without the need for that package."""
TELLS = (
    *(graph.POLICY_GOAL, graph.POLICY_INPUT, graph.POLICY_ACTION, graph.EXIT_REPORT),
    *(graph.SUBTASK_DONE, graph.INSTRUCTION, graph.GRIPPER_COMMAND),
)
"""Topics whose messages are kept, decoded."""


@dataclass(frozen=True)
class Logged:
    """A decoded message and when it was received."""

    log_ns: int
    content: Any

    @property
    def stamp_ns(self) -> int:
        """Of its header."""
        return stamp_to_ns(self.content.header.stamp)


@dataclass
class PolicyStep:
    """One time that the policy was asked.

    Attributes:
        stamp_ns: of the static image.
        actions: the PolicyActions of its chunk that were sent, one for each frame, the first for the frame shown.
        shown: its PolicyInput; None if that is not in the recording.
        report: its ExitReport, or None.
    """

    stamp_ns: int
    actions: list[Logged]
    shown: Any = None
    report: Any = None


@dataclass
class RecordedGoal:
    """A goal of the policy node.

    Attributes:
        goal_id: 16 bytes.
        told: the first GoalStatus of it that was recorded: instruction, policy and its settings.
        ended: the one that tells its end, or None.
        steps: of the policy, in order.
        gap: why its steps are not all there; empty if they are.
    """

    goal_id: bytes
    told: Logged
    ended: Logged | None = None
    steps: list[PolicyStep] = field(default_factory=list)
    gap: str = ""

    @property
    def outcome(self) -> str:
        """Name of the outcome, such as 'DONE'; 'RUNNING' if its end was not recorded."""
        return "RUNNING" if self.ended is None else GoalOutcome(self.ended.content.outcome).name

    @property
    def instruction(self) -> str:
        """What to do."""
        return str(self.told.content.instruction)


@dataclass
class Runs:
    """What one pass through a recording finds.

    Attributes:
        namespace: of the graph, '' or such as '/robot1'.
        goals: in the order in which they began.
        tells: decoded messages by relative topic, of `TELLS`.
        stamps: of the messages of each channel of a frame, ascending, each once.
        logged: when the static image of a stamp was received first.
        joints: messages of joint_states by stamp, not decoded.
        arm: from the recorded parameters of the policy node.
        arm_known: whether those were there; otherwise `arm` is the default one.
        slop_ns: how far the stamps of a frame may lie apart.
        period_s: of control.
    """

    namespace: str
    goals: list[RecordedGoal]
    tells: dict[str, list[Logged]]
    stamps: dict[str, list[int]]
    logged: dict[int, int]
    joints: dict[int, RecordedMessage]
    arm: ArmParameters
    arm_known: bool
    slop_ns: int
    period_s: float

    def has(self, channel: str, stamp_ns: int) -> bool:
        """Whether that channel has a message of exactly this stamp."""
        stamps = self.stamps[channel]
        place = bisect_left(stamps, stamp_ns)
        return place < len(stamps) and stamps[place] == stamp_ns

    def nearest(self, channel: str, stamp_ns: int) -> int | None:
        """The stamp of that channel nearest to `stamp_ns`, if one is within the slop."""
        stamps = self.stamps[channel]
        place = bisect_left(stamps, stamp_ns)
        near = [other for other in stamps[max(place - 1, 0) : place + 1] if abs(other - stamp_ns) <= self.slop_ns]
        return min(near, key=lambda other: abs(other - stamp_ns), default=None)


def read_runs(recording: Recording) -> Runs:
    """Goes through a recording once; images are not kept.

    Raises:
        ConfigError: if the recording can't be read, or a camera was started anew while it ran.
    """
    namespace: str | None = None
    tells: dict[str, list[Logged]] = {name: [] for name in TELLS}
    stamps: dict[str, set[int]] = {channel: set() for channel in CHANNELS}
    logged: dict[int, int] = {}
    joints: dict[int, RecordedMessage] = {}
    newest_ns = 0
    for message in recording.messages():
        namespace = namespace_of(message.topic) if namespace is None else namespace
        if namespace is None:
            continue
        name = message.topic.removeprefix(f"{namespace}/")
        if name in tells:
            tells[name].append(Logged(message.log_ns, message.content))
        for channel in CHANNELS:
            if name == TOPICS[channel]:
                stamps[channel].add(message.stamp_ns)
        if name == TOPICS[JOINTS]:
            joints[message.stamp_ns] = message
        elif name == TOPICS[STATIC]:
            logged.setdefault(message.stamp_ns, message.log_ns)
            if message.stamp_ns < newest_ns - RESTART_NS:
                raise ConfigError(
                    f"{recording.path}: the stamps of {message.topic} go back from {newest_ns / 1e9:.3f} to "
                    f"{message.stamp_ns / 1e9:.3f} s, so its source was started anew; record each start apart"
                )
            newest_ns = max(newest_ns, message.stamp_ns)
    parameters = _policy_parameters(recording, namespace or "")
    return Runs(
        namespace=namespace or "",
        goals=list(_goals(tells)),
        tells=tells,
        stamps={channel: sorted(found) for channel, found in stamps.items()},
        logged=logged,
        joints=joints,
        arm=_arm(parameters),
        arm_known=bool(parameters),
        slop_ns=round(1e9 * parameters.get("image_slop_s", 0.02)),
        period_s=1.0 / parameters.get("control_rate_hz", CONTROL_RATE_HZ),
    )


def namespace_of(topic: str) -> str | None:
    """The namespace that the graph has if this is one of its topics; None if it is none of them."""
    for name in (*TELLS, *TOPICS.values()):
        if topic.endswith(f"/{name}"):
            return topic.removesuffix(f"/{name}")
    return None


def _policy_parameters(recording: Recording, namespace: str) -> dict[str, Any]:
    texts = recording.metadata.get(f"{RECORD}{namespace}/policy", {})
    return {name: json.loads(text) for name, text in texts.items()}


def _arm(parameters: dict[str, Any]) -> ArmParameters:
    default = ArmParameters()
    return ArmParameters(
        tuple(parameters.get("joint_names", default.joint_names)),
        tuple(parameters.get("finger_joint_names", default.finger_joint_names)),
        ArmGeometry(
            tuple(parameters.get("base_position_m", default.geometry.base_position_m)),
            parameters.get("tcp_offset_m", default.geometry.tcp_offset_m),
        ),
        parameters.get("base_frame", default.base_frame),
    )


def _goals(tells: dict[str, list[Logged]]) -> Iterator[RecordedGoal]:
    """Goals with their steps, put together from the topics that tell of them."""
    goals: dict[bytes, RecordedGoal] = {}
    for told in tells[graph.POLICY_GOAL]:
        key = bytes(told.content.goal_id)
        goal = goals.setdefault(key, RecordedGoal(key, told))
        if told.content.outcome != RUNNING:
            goal.ended = told
    shown = {(bytes(item.content.goal_id), item.stamp_ns): item.content for item in tells[graph.POLICY_INPUT]}
    reports = {(item.stamp_ns, int(item.content.step)): item.content for item in tells[graph.EXIT_REPORT]}
    actions: dict[bytes, dict[int, Logged]] = {}
    for item in tells[graph.POLICY_ACTION]:
        # Standstill has no stamp; a repeated answer has that of the first one.
        if item.stamp_ns:
            actions.setdefault(bytes(item.content.goal_id), {}).setdefault(item.stamp_ns, item)
    for key, goal in goals.items():
        _put_steps(goal, list(actions.get(key, {}).values()))
        for step in goal.steps:
            step.shown = shown.get((key, step.stamp_ns))
            step.report = reports.get((step.stamp_ns, int(step.actions[0].content.step)))
        yield goal


def _put_steps(goal: RecordedGoal, actions: Sequence[Logged]) -> None:
    """The policy's steps, as far as no control step is missing."""
    for number, item in enumerate(sorted(actions, key=lambda item: int(item.content.step)), 1):
        if item.content.step != number:
            goal.gap = f"the action of control step {number} was not recorded"
            return
        if item.content.chunk_index == 0:
            goal.steps.append(PolicyStep(item.stamp_ns, [item]))
        else:
            goal.steps[-1].actions.append(item)
    ended = goal.ended
    if ended is not None and ended.content.steps > len(actions):
        goal.gap = f"the action of control step {len(actions) + 1} was not recorded"
