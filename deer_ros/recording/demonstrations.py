"""Demonstrations out of a recording: frames with what was felt and done at each, from the policy or from the motion."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import GRIPPER_CLOSE, GRIPPER_OPEN, MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD
from deer_ros import graph
from deer_ros.control.goal import GoalOutcome, gripper_action_now
from deer_ros.conversions import stamp_to_ns
from deer_ros.recording.images import Wanted
from deer_ros.recording.runs import RecordedGoal, Runs
from deer_ros.recording.spans import HALF_OPEN_M, Span, spans
from deer_ros.robot_frame import GRIPPER, JOINTS, FrameParts, proprioception, split_joints

POLICY, MEASURED = "policy", "measured"
NEXT_FRAME = 0.75
"""A frame counts as the next one this part of a control period after the one before; what comes sooner is left out."""
LONGEST_GAP = 4.5
"""Control periods without a frame, after which measured motion no longer tells what was done."""


@dataclass(frozen=True)
class Demonstration:
    """An instruction being followed.

    Attributes:
        instruction: the words.
        task: as whoever judged it called it; empty if nobody did.
        images: of each frame.
        robot_obs: (frames, 15) float64.
        rel_actions: (frames, 7) float32.
        clipped: frames whose measured motion was faster than an action can tell.
        gaps: frames that came more than 1.5 control periods after the one before.
    """

    instruction: str
    task: str
    images: tuple[Wanted, ...]
    robot_obs: np.ndarray
    rel_actions: np.ndarray
    clipped: int
    gaps: int


def demonstrations(runs: Runs, actions: str, everything: bool) -> tuple[list[Demonstration], list[str]]:
    """What a recording shows, and what was left out with the reasons.

    Args:
        runs: of the recording.
        actions: `POLICY`: each frame that the policy answered, with that answer; `MEASURED`: frames a control period
            apart, with the motion of the tool until the next one, whoever moved it.
        everything: also what did not end DONE.
    """
    found: list[Demonstration] = []
    left_out: list[str] = []
    if actions not in (POLICY, MEASURED):
        raise ConfigError(f"actions is {actions!r}; it must be {POLICY} or {MEASURED}")
    if actions == POLICY and not runs.goals:
        raise ConfigError("the recording holds no goal of the policy node; take --actions measured for teleoperation")
    for span in spans(runs):
        try:
            if span.outcome != GoalOutcome.DONE.name and not everything:
                raise ConfigError(f"it ended {span.outcome}; --all takes it, too")
            found.append(_of_policy(runs, span) if actions == POLICY else _of_motion(runs, span))
        except ConfigError as error:
            left_out.append(f"{span.instruction!r}: {error}")
    return found, left_out


def _of_policy(runs: Runs, span: Span) -> Demonstration:
    goal = span.goal
    assert goal is not None
    if goal.gap:
        raise ConfigError(goal.gap)
    if not goal.steps:
        raise ConfigError("the policy took no step")
    stamps, images, felt, done = [], [], [], []
    gripper = _gripper_before(goal)
    for step in goal.steps:
        for place, item in enumerate(step.actions):
            shown = step.shown if place == 0 else None
            if shown is not None:
                gripper = float(shown.proprioception[-1])
            images.append(_images(runs, item.stamp_ns, None if shown is None else stamp_to_ns(shown.gripper_stamp)))
            joints_ns = None if shown is None else stamp_to_ns(shown.joints_stamp)
            felt.append(_felt(runs, item.stamp_ns, gripper, joints_ns))
            values = np.array(item.content.action, np.float32)
            stamps.append(item.stamp_ns)
            done.append(values)
            gripper = float(values[-1])
    return Demonstration(
        span.instruction, span.task, tuple(images), np.array(felt), np.array(done), 0, _gaps(runs, stamps)
    )


def _of_motion(runs: Runs, span: Span) -> Demonstration:
    stamps: list[int] = []
    images: list[Wanted] = []
    least_ns = NEXT_FRAME * runs.period_s * 1e9
    for stamp in span.stamps:
        parts_there = runs.nearest(GRIPPER, stamp) is not None and runs.nearest(JOINTS, stamp) is not None
        if parts_there and (not stamps or stamp - stamps[-1] >= least_ns):
            stamps.append(stamp)
            images.append(_images(runs, stamp, None))
    if len(stamps) < 2:
        raise ConfigError(f"it has {len(stamps)} complete frames; motion needs at least two")
    widest_s = float(np.diff(stamps).max()) / 1e9
    if widest_s > LONGEST_GAP * runs.period_s:
        raise ConfigError(f"its frames are up to {widest_s:.3f} s apart; motion can't be told over such a gap")
    commanded = [_commanded(runs, stamp) for stamp in stamps]
    felt = np.array([_felt(runs, stamp, gripper, None) for stamp, gripper in zip(stamps, commanded, strict=True)])
    motion = _motion(felt[:, :6], np.diff(stamps) / 1e9, runs.period_s)
    clipped = int((np.abs(motion) > 1.0).any(axis=1).sum())
    done = np.concatenate([np.clip(motion, -1.0, 1.0), np.array(commanded[1:])[:, None]], axis=1)
    return Demonstration(
        span.instruction,
        span.task,
        tuple(images[:-1]),
        felt[:-1],
        done.astype(np.float32),
        clipped,
        _gaps(runs, stamps[:-1]),
    )


def _motion(poses: np.ndarray, apart_s: np.ndarray, period_s: float) -> np.ndarray:
    """Relative actions (frames - 1, 6), not clipped, from each pose (xyz in m, euler xyz in rad) to the next."""
    steps = np.diff(poses, axis=0)
    steps[:, 3:] = (steps[:, 3:] + np.pi) % (2 * np.pi) - np.pi
    scale = np.repeat([MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD], 3)
    return steps / scale * (period_s / apart_s)[:, None]


def _images(runs: Runs, static_ns: int, gripper_ns: int | None) -> Wanted:
    gripper_ns = runs.nearest(GRIPPER, static_ns) if gripper_ns is None else gripper_ns
    if static_ns not in runs.logged or gripper_ns is None or not runs.has(GRIPPER, gripper_ns):
        raise ConfigError(f"an image of frame {static_ns / 1e9:.6f} s was not recorded")
    return Wanted(static_ns, gripper_ns)


def _felt(runs: Runs, static_ns: int, gripper_action: float, joints_ns: int | None) -> np.ndarray:
    """CALVIN's robot_obs (15,), as the policy node makes it."""
    joints_ns = runs.nearest(JOINTS, static_ns) if joints_ns is None else joints_ns
    if joints_ns is None or joints_ns not in runs.joints:
        raise ConfigError(f"the joint states of frame {static_ns / 1e9:.6f} s were not recorded")
    _, positions = FrameParts(runs.arm).value(JOINTS, runs.joints[joints_ns].content)
    return proprioception(runs.arm, *split_joints(runs.arm, positions), gripper_action).astype(np.float64)


def _gripper_before(goal: RecordedGoal) -> float:
    shown = goal.steps[0].shown
    return GRIPPER_OPEN if shown is None else float(shown.proprioception[-1])


def _commanded(runs: Runs, static_ns: int) -> float:
    """What the gripper was told last when a frame came in; from its opening, where nothing was told or recorded."""
    told = runs.tells[graph.GRIPPER_COMMAND]
    place = bisect_right([item.log_ns for item in told], runs.logged[static_ns])
    if place:
        return GRIPPER_OPEN if told[place - 1].content.data > HALF_OPEN_M else GRIPPER_CLOSE
    joints_ns = runs.nearest(JOINTS, static_ns)
    assert joints_ns is not None
    _, positions = FrameParts(runs.arm).value(JOINTS, runs.joints[joints_ns].content)
    return gripper_action_now(None, split_joints(runs.arm, positions)[1])


def _gaps(runs: Runs, stamps: Sequence[int]) -> int:
    return int((np.diff(stamps) > 1.5e9 * runs.period_s).sum())
