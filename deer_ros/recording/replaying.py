"""Shows a policy again what it was shown when a recording was made, and compares its answers bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from deer_policies.interfaces import ActionChunk, Budget, ExitReport, Policy, ReduciblePolicy
from deer_ros.control.camera_fit import CameraFit
from deer_ros.conversions import stamp_to_ns
from deer_ros.recording.images import Wanted, find_images
from deer_ros.recording.reading import Recording
from deer_ros.recording.runs import PolicyStep, RecordedGoal, Runs
from deer_ros.robot_frame import CHANNELS, GRIPPER, JOINTS, STATIC, FrameParts


@dataclass(frozen=True)
class PolicySettings:
    """How the recorded policy was run; names and meanings are those of the node's parameters.

    Attributes:
        budget: in force at the first step that is replayed.
    """

    policy: str
    device: str
    threads: int
    precision: str
    reuse_views_below: float
    weights_sha256: str
    budget: Budget

    @classmethod
    def of(cls, goal: RecordedGoal) -> PolicySettings:
        """Those of a goal that has steps."""
        told = goal.told.content
        return cls(
            str(told.policy),
            str(told.device),
            int(told.threads),
            str(told.precision),
            float(told.reuse_views_below),
            str(told.weights_sha256),
            budget_of(goal.steps[0].shown),
        )


@dataclass
class Comparison:
    """What a replay found.

    Attributes:
        goals: that were replayed.
        steps: times that the policy was asked.
        actions: control steps whose actions were compared.
        different: steps that differ in anything.
        first: the first difference, in words.
        differences: others that concern the whole, such as other weights.
        missing: what could not be compared, and why.
        pinned: steps under a latency budget, whose exits depend on time: they were made at the recorded exits.
    """

    goals: int = 0
    steps: int = 0
    actions: int = 0
    different: int = 0
    first: str = ""
    differences: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    pinned: int = 0

    @property
    def equal(self) -> bool:
        """Whether there was something to compare, all of it could be, and nothing differed."""
        return self.steps > 0 and not (self.different or self.differences or self.missing)

    def note(self, where: str, difference: str) -> None:
        """Counts a step that differs."""
        self.different += 1
        self.first = self.first or f"{where}: {difference}"


def budget_of(shown: Any) -> Budget:
    """The budget that a PolicyInput tells."""
    return Budget(**{item.name: getattr(shown, item.name) or None for item in fields(Budget)})


def replay(
    recording: Recording,
    runs: Runs,
    load: Callable[[PolicySettings], Policy],
    pin_exit: Callable[[Policy, int], None],
    progress: Callable[[Comparison], None] = lambda _: None,
) -> Comparison:
    """Steps the policy through every goal of a recording.

    Args:
        recording: for its images.
        runs: what it tells of its goals.
        load: makes a policy for the settings of a goal; called again when they change.
        pin_exit: makes a policy take this exit whatever its budget says.
        progress: called after each step.
    """
    found = Comparison()
    work = [(goal, step) for goal in runs.goals for step in _whole_steps(goal, runs, found)]
    wanted = [Wanted(step.stamp_ns, stamp_to_ns(step.shown.gripper_stamp)) for _, step in work]
    loaded: PolicySettings | None = None
    policy: Policy | None = None
    goal: RecordedGoal | None = None
    state: Any = None
    for place, static, gripper in find_images(recording, runs.namespace, wanted):
        if goal is not work[place][0]:
            goal = work[place][0]
            found.goals += 1
            settings = PolicySettings.of(goal)
            if policy is None or loaded is None or replace(settings, budget=loaded.budget) != loaded:
                policy, loaded = load(settings), settings
                _compare_weights(settings, policy, found)
            state = policy.initial_state()
        assert policy is not None
        step = work[place][1]
        where = f"{goal.instruction!r}, control step {step.actions[0].content.step}, frame {step.stamp_ns / 1e9:.6f} s"
        state = _step(policy, state, goal, step, (static, gripper), runs, pin_exit, where, found)
        progress(found)
    return found


def _step(
    policy: Policy,
    state: Any,
    goal: RecordedGoal,
    step: PolicyStep,
    images: tuple[Any, Any],
    runs: Runs,
    pin_exit: Callable[[Policy, int], None],
    where: str,
    found: Comparison,
) -> Any:
    shapes = policy.info.static_shape, policy.info.gripper_shape
    fits = {
        channel: CameraFit(channel, (image.height, image.width), shape[:2])
        for channel, image, shape in zip((STATIC, GRIPPER), images, shapes, strict=True)
    }
    parts = FrameParts(runs.arm, fits)
    joints = runs.joints[stamp_to_ns(step.shown.joints_stamp)].content
    messages = {STATIC: images[0], GRIPPER: images[1], JOINTS: joints}
    frame = parts.frame({channel: parts.value(channel, messages[channel]) for channel in CHANNELS})
    felt = np.array(step.shown.proprioception, np.float32)
    seen = parts.observation(frame, float(felt[-1]), goal.instruction)
    budget = budget_of(step.shown)
    pinned = budget.latency_ms is not None
    if pinned:
        pin_exit(policy, int(step.report.exit_index))
    else:
        _restrict(policy, budget, len(step.report.thresholds))
    chunk, state, report = policy.step(seen, state)
    found.steps += 1
    found.pinned += pinned
    found.actions += len(step.actions)
    difference = (
        _vector_difference("proprioception", felt, seen.proprioception)
        or _chunk_difference(step, chunk)
        or _exit_difference(step.report, report, pinned)
    )
    if difference:
        found.note(where, difference)
    return state


def _restrict(policy: Policy, budget: Budget, exits: int) -> None:
    """The budget of a step, and the exits that were in use then: some may have been given up as memory ran out."""
    if policy.budget != budget or (isinstance(policy, ReduciblePolicy) and policy.exits_in_use < exits):
        policy.set_budget(budget)
    if isinstance(policy, ReduciblePolicy) and policy.exits_in_use > exits:
        policy.limit_exits(exits)


def _whole_steps(goal: RecordedGoal, runs: Runs, found: Comparison) -> Iterator[PolicyStep]:
    """Steps of a goal up to the first of which something is missing; the policy's memory ends there."""
    for number, step in enumerate(goal.steps, 1):
        lacks = _lacks(step, runs)
        if lacks:
            found.missing.append(f"{goal.instruction!r}, from policy step {number} of {len(goal.steps)}: {lacks}")
            return
        yield step
    if goal.gap:
        found.missing.append(f"{goal.instruction!r}, after policy step {len(goal.steps)}: {goal.gap}")


def _lacks(step: PolicyStep, runs: Runs) -> str:
    if step.shown is None:
        return "its message on policy/input was not recorded"
    if step.report is None:
        return "its message on policy/exit_report was not recorded"
    stamps = (
        (STATIC, step.stamp_ns),
        (GRIPPER, stamp_to_ns(step.shown.gripper_stamp)),
        (JOINTS, stamp_to_ns(step.shown.joints_stamp)),
    )
    missing = [channel for channel, stamp in stamps if not runs.has(channel, stamp)]
    return f"its {' and '.join(missing)} message was not recorded" if missing else ""


def _compare_weights(settings: PolicySettings, policy: Policy, found: Comparison) -> None:
    here = policy.info.weights_sha256
    if here != settings.weights_sha256:
        found.differences.append(
            f"policy {settings.policy} had weights {settings.weights_sha256[:16] or 'without a hash'}; the one here "
            f"({policy.info.name}) has {here[:16] or 'none'}"
        )


def _chunk_difference(step: PolicyStep, chunk: ActionChunk) -> str:
    recorded = np.array([item.content.action for item in step.actions], np.float32)
    made = np.asarray(chunk.actions, np.float32)
    if len(recorded) > len(made):
        return f"the chunk has {len(made)} actions; recorded are {len(recorded)}"
    for place, values in enumerate(recorded):
        difference = _vector_difference(f"action {place} of the chunk", values, made[place])
        if difference:
            return difference
    return ""


def _exit_difference(recorded: Any, made: ExitReport, pinned: bool) -> str:
    if recorded.exit_layer != made.exit_layer or recorded.exit_index != made.exit_index:
        return f"recorded exit after layer {recorded.exit_layer + 1}, replayed after layer {made.exit_layer + 1}"
    if pinned:
        return ""
    return _vector_difference(
        "exit distances", np.array(recorded.distances, np.float32), np.array(made.distances, np.float32)
    ) or _vector_difference(
        "exit thresholds", np.array(recorded.thresholds, np.float32), np.array(made.thresholds, np.float32)
    )


def _vector_difference(name: str, recorded: np.ndarray, made: np.ndarray) -> str:
    """Empty if both are the same bit for bit."""
    if recorded.tobytes() == np.asarray(made, np.float32).tobytes():
        return ""
    if recorded.shape != made.shape:
        return f"{name}: recorded {recorded.tolist()}, replayed {made.tolist()}"
    place = int(np.argmax(np.abs(recorded - made)))
    return (
        f"{name} differs by up to {np.abs(recorded - made).max():.3g} (value {place}: recorded {recorded[place]:.9g}, "
        f"replayed {made[place]:.9g})"
    )
