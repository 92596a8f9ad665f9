"""Limits on what goes to the arm: workspace box, speed, acceleration, jerk, gripper openings and rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist, length

SETTLING_S = 0.05
"""Very near a wall, the speed towards it is at most what would reach it in this time."""

_POSITIVE = (
    "linear_speed_m_s",
    "angular_speed_rad_s",
    "linear_acceleration_m_s2",
    "angular_acceleration_rad_s2",
    "linear_jerk_m_s3",
    "angular_jerk_rad_s3",
    "gripper_rate_hz",
)


@dataclass(frozen=True)
class SafetyLimits:
    """What the arm may do at most; every value is finite, and there is no way to turn one off.

    Attributes:
        workspace_low_m, workspace_high_m: corners of the box that the tool centre point stays in, base frame.
        linear_speed_m_s, angular_speed_rad_s: magnitudes.
        linear_acceleration_m_s2, angular_acceleration_rad_s2: magnitudes.
        linear_jerk_m_s3, angular_jerk_rad_s3: magnitudes of the change of acceleration in a second.
        gripper_closed_m, gripper_open_m: openings that the gripper's two actions ask for.
        gripper_rate_hz: changes of the gripper's command in a second.
    """

    workspace_low_m: tuple[float, float, float]
    workspace_high_m: tuple[float, float, float]
    linear_speed_m_s: float
    angular_speed_rad_s: float
    linear_acceleration_m_s2: float
    angular_acceleration_rad_s2: float
    linear_jerk_m_s3: float
    angular_jerk_rad_s3: float
    gripper_closed_m: float
    gripper_open_m: float
    gripper_rate_hz: float

    def __post_init__(self) -> None:
        low, high = np.asarray(self.workspace_low_m), np.asarray(self.workspace_high_m)
        if low.shape != (3,) or high.shape != (3,) or not np.isfinite([low, high]).all() or not (low < high).all():
            raise ConfigError(
                f"workspace {low.tolist()} to {high.tolist()} must be two finite corners in m, low before high"
            )
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ConfigError(f"safety limit {name} is {value}; it must be a positive finite number")
        openings = (self.gripper_closed_m, self.gripper_open_m)
        if not (np.isfinite(openings).all() and openings[0] < openings[1]):
            raise ConfigError(f"gripper openings {openings} m must be finite, closed below open")

    def limit_target(self, twist: Twist, position_m: np.ndarray) -> tuple[Twist, tuple[str, ...]]:
        """The twist that may be headed for, and what had to be limited, in words.

        Speed keeps its direction. The workspace, which comes last because it counts most, slows only the part that
        leads towards a wall, so that half of the acceleration limit is enough to stop there; outside of the box, motion
        back in is free and motion further out is zero.

        Args:
            twist: what is asked for.
            position_m: (3,) position of the tool centre point.
        """
        reasons: list[str] = []
        linear = _limit_norm(twist.linear, self.linear_speed_m_s, "linear speed", reasons)
        angular = _limit_norm(twist.angular, self.angular_speed_rad_s, "angular speed", reasons)
        room_down, room_up = self._room(position_m)
        slow = np.minimum(np.maximum(linear, -self._approach_m_s(room_down)), self._approach_m_s(room_up))
        if axes := [axis for axis, changed in zip("xyz", (slow != linear).tolist(), strict=True) if changed]:
            reasons.append(f"workspace limit in {', '.join(axes)}")
        return Twist(slow, angular), tuple(reasons)

    def keep_inside(self, linear: np.ndarray, position_m: np.ndarray, period_s: float) -> np.ndarray:
        """The velocity (3,) without the part that leaves the box within one period: the last word on every command."""
        room_down, room_up = self._room(position_m)
        return np.minimum(np.maximum(linear, -room_down / period_s), room_up / period_s)

    def _approach_m_s(self, room_m: np.ndarray) -> np.ndarray:
        """Greatest speed towards a wall `room_m` away: braked evenly, and settling where that would end abruptly."""
        braking = self.linear_acceleration_m_s2 / 2
        settling_m = braking * SETTLING_S**2
        even = np.sqrt(2 * braking * np.maximum(room_m - settling_m / 2, 0.0))
        return np.where(room_m < settling_m, room_m / SETTLING_S, even)

    def _room(self, position_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances (3,) to the lower and to the upper walls, none below zero."""
        down = np.maximum(position_m - np.asarray(self.workspace_low_m), 0.0)
        up = np.maximum(np.asarray(self.workspace_high_m) - position_m, 0.0)
        return down, up


def _limit_norm(values: np.ndarray, most: float, name: str, reasons: list[str]) -> np.ndarray:
    norm = length(values)
    if norm <= most:
        return values
    reasons.append(f"{name} limited to {most:.3g}")
    return values * (most / norm)
