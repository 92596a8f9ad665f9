"""One instruction being followed: its steps, its limits, and how it ends, decided once."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import GRIPPER_CLOSE, GRIPPER_OPEN, checked_instruction
from deer_ros.control.action_queue import ActionQueue

FULLY_OPEN_M = 0.078
"""Beyond this opening, a gripper that was told to close has not done so: somebody has moved the robot since."""
FULLY_CLOSED_M = 0.002


class GoalOutcome(enum.IntEnum):
    """The values of `deer_msgs/FollowInstruction`'s result."""

    DONE = 0
    TIMEOUT = 1
    CANCELLED = 2
    FAILED = 3


@dataclass(frozen=True)
class GoalLimits:
    """When a goal ends by itself.

    Attributes:
        default_max_steps: control steps if the goal names none.
        frame_timeout_s: seconds without a new usable frame after which it fails.
    """

    default_max_steps: int
    frame_timeout_s: float

    def __post_init__(self) -> None:
        if self.default_max_steps < 1:
            raise ConfigError(f"default_max_steps is {self.default_max_steps}; it must be at least 1")
        if not (np.isfinite(self.frame_timeout_s) and self.frame_timeout_s > 0.0):
            raise ConfigError(f"frame_timeout_s is {self.frame_timeout_s}; it must be a positive number of seconds")


@dataclass
class Goal:
    """An instruction on its way. The first end is the end; a later one changes nothing.

    Attributes:
        goal_id: 16 bytes, the UUID that its actions carry.
        instruction: what to do.
        max_steps: control steps before it counts as a timeout.
        began_stamp_s: stamp of the newest frame when it began; what is judged on older frames does not concern it.
        progress_s: when the last new frame came, receiver's clock.
        queue: what is left of the chunk that it is executing; only the node's thread touches it.
        policy_state: recurrent state of the policy, None before the first step; only the model's thread touches it.
        steps: control steps taken.
        outcome, reason: None and "" until it ends.
    """

    goal_id: bytes
    instruction: str
    max_steps: int
    began_stamp_s: float
    progress_s: float
    queue: ActionQueue
    policy_state: Any = field(default=None, init=False)
    steps: int = field(default=0, init=False)
    outcome: GoalOutcome | None = field(default=None, init=False)
    reason: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.instruction = checked_instruction(self.instruction)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.outcome is not None

    def end(self, outcome: GoalOutcome, reason: str) -> bool:
        """Ends it; False if it had ended before."""
        if self.ended:
            return False
        self.outcome, self.reason = outcome, reason
        return True

    def judged_done(self, stamp_s: float, task: str) -> bool:
        """Ends it as done if the judgement is of a frame newer than its beginning."""
        return stamp_s > self.began_stamp_s and self.end(GoalOutcome.DONE, f"{task or 'the subtask'} is done")

    def new_frame(self, now_s: float) -> bool:
        """Notes a new frame; False, and the end as a timeout, if no step is left to answer it with."""
        self.progress_s = now_s
        if self.steps >= self.max_steps:
            self.end(GoalOutcome.TIMEOUT, f"not done within {self.max_steps} control steps")
        return not self.ended

    def check(self, now_s: float, limits: GoalLimits, trouble: str) -> bool:
        """Fails it if no new frame has come for too long; `trouble` says what was wrong with the frames, if known."""
        if self.ended or now_s - self.progress_s <= limits.frame_timeout_s:
            return False
        cause = trouble or "are the cameras and joint_states running?"
        return self.end(GoalOutcome.FAILED, f"no usable frame for {limits.frame_timeout_s:g} s: {cause}")


def gripper_action_now(commanded: float | None, opening_m: float) -> float:
    """The last gripper action as the proprioception tells it, at the start of a goal.

    It is what was commanded last, unless nothing was or the measured opening contradicts it because the robot was moved
    or reset since; then the opening decides.
    """
    if commanded == GRIPPER_CLOSE and opening_m < FULLY_OPEN_M:
        return GRIPPER_CLOSE
    if commanded == GRIPPER_OPEN and opening_m > FULLY_CLOSED_M:
        return GRIPPER_OPEN
    return GRIPPER_OPEN if opening_m > FULLY_OPEN_M / 2 else GRIPPER_CLOSE
