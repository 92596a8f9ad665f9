"""A gripper on its way to an opening: whether it is there, or stalled on the way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from deer_policies.errors import ConfigError


@dataclass(frozen=True)
class GripperTolerances:
    """When a gripper counts as there or as stalled, as ros2_control's gripper controllers have it.

    Attributes:
        goal_m: this near to the opening that was asked for it is there.
        stall_velocity_m_s: slower than this it does not move.
        stall_timeout_s: not moving for so long, it is stalled.
    """

    goal_m: float = 0.002
    stall_velocity_m_s: float = 0.001
    stall_timeout_s: float = 0.5

    def __post_init__(self) -> None:
        if min(self.goal_m, self.stall_velocity_m_s, self.stall_timeout_s) <= 0.0:
            raise ConfigError(f"{self} must hold positive values")


class GripperState(Enum):
    """What has become of a motion."""

    MOVING = "moving"
    REACHED = "reached"
    STALLED = "stalled"


class GripperMotion:
    """One motion.

    Args:
        target_m: the opening that was asked for, m.
        tolerances: see `GripperTolerances`.

    Raises:
        ConfigError: if the target is not finite.
    """

    def __init__(self, target_m: float, tolerances: GripperTolerances) -> None:
        if not np.isfinite(target_m):
            raise ConfigError(f"gripper opening {target_m} is not finite; nothing is done with it")
        self.target_m = target_m
        self.state = GripperState.MOVING
        self._tolerances = tolerances
        self._before: tuple[float, float] | None = None
        self._moved_s: float | None = None

    def observe(self, opening_m: float, now_s: float) -> GripperState:
        """Takes the opening at a time; the first of them begins the motion. Its end, once told, stays."""
        if self.state is not GripperState.MOVING:
            return self.state
        if self._moved_s is None:
            self._moved_s = now_s
        if self._before is not None and now_s > self._before[1]:
            speed = abs(opening_m - self._before[0]) / (now_s - self._before[1])
            if speed > self._tolerances.stall_velocity_m_s:
                self._moved_s = now_s
        self._before = (opening_m, now_s)
        if abs(opening_m - self.target_m) <= self._tolerances.goal_m:
            self.state = GripperState.REACHED
        elif now_s - self._moved_s >= self._tolerances.stall_timeout_s:
            self.state = GripperState.STALLED
        return self.state
