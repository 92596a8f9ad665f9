"""Limits on what goes to the arm: workspace box, speed, acceleration, gripper openings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist


@dataclass(frozen=True)
class SafetyLimits:
    """What the arm may do at most; every value is finite, and there is no way to turn one off.

    Attributes:
        workspace_low_m, workspace_high_m: corners of the box that the tool centre point stays in, base frame.
        linear_speed_m_s, angular_speed_rad_s: magnitudes.
        linear_acceleration_m_s2, angular_acceleration_rad_s2: magnitudes of the change between commands. Coming to a
            standstill is never delayed; smooth braking is the arm controller's part.
        gripper_closed_m, gripper_open_m: openings that the gripper's two actions ask for.
    """

    workspace_low_m: tuple[float, float, float]
    workspace_high_m: tuple[float, float, float]
    linear_speed_m_s: float
    angular_speed_rad_s: float
    linear_acceleration_m_s2: float
    angular_acceleration_rad_s2: float
    gripper_closed_m: float
    gripper_open_m: float

    def __post_init__(self) -> None:
        low, high = np.asarray(self.workspace_low_m), np.asarray(self.workspace_high_m)
        if low.shape != (3,) or high.shape != (3,) or not np.isfinite([low, high]).all() or not (low < high).all():
            raise ConfigError(
                f"workspace {low.tolist()} to {high.tolist()} must be two finite corners in m, low before high"
            )
        for name in (
            "linear_speed_m_s",
            "angular_speed_rad_s",
            "linear_acceleration_m_s2",
            "angular_acceleration_rad_s2",
        ):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ConfigError(f"safety limit {name} is {value}; it must be a positive finite number")
        openings = (self.gripper_closed_m, self.gripper_open_m)
        if not (np.isfinite(openings).all() and openings[0] < openings[1]):
            raise ConfigError(f"gripper openings {openings} m must be finite, closed below open")

    def limit_twist(
        self, twist: Twist, previous: Twist, position_m: np.ndarray, period_s: float
    ) -> tuple[Twist, tuple[str, ...]]:
        """The twist within all limits, and what had to be limited, in words.

        Speed and acceleration keep the direction of the motion (of its change); the workspace, which comes last because
        it counts most, takes away only the part that leads out of the box within one period.

        Args:
            twist: what is asked for.
            previous: what went out last.
            position_m: (3,) measured position of the tool centre point.
            period_s: how long the twist acts.
        """
        reasons: list[str] = []
        linear = _limit_norm(twist.linear, self.linear_speed_m_s, "linear speed", reasons)
        angular = _limit_norm(twist.angular, self.angular_speed_rad_s, "angular speed", reasons)
        linear = _limit_change(
            linear, previous.linear, self.linear_acceleration_m_s2 * period_s, "linear acceleration", reasons
        )
        angular = _limit_change(
            angular, previous.angular, self.angular_acceleration_rad_s2 * period_s, "angular acceleration", reasons
        )
        linear = self._keep_inside(linear, position_m, period_s, reasons)
        return Twist(linear, angular), tuple(reasons)

    def _keep_inside(
        self, linear: np.ndarray, position_m: np.ndarray, period_s: float, reasons: list[str]
    ) -> np.ndarray:
        """Outside of the box, motion back in is free and motion further out is zero."""
        room_down = np.minimum((np.asarray(self.workspace_low_m) - position_m) / period_s, 0.0)
        room_up = np.maximum((np.asarray(self.workspace_high_m) - position_m) / period_s, 0.0)
        inside = np.clip(linear, room_down, room_up)
        if axes := [axis for axis, changed in zip("xyz", inside != linear, strict=True) if changed]:
            reasons.append(f"workspace limit in {', '.join(axes)}")
        return inside


def _limit_norm(values: np.ndarray, most: float, name: str, reasons: list[str]) -> np.ndarray:
    norm = float(np.linalg.norm(values))
    if norm <= most:
        return values
    reasons.append(f"{name} limited from {norm:.3g} to {most:.3g}")
    return values * (most / norm)


def _limit_change(values: np.ndarray, previous: np.ndarray, most: float, name: str, reasons: list[str]) -> np.ndarray:
    change = values - previous
    norm = float(np.linalg.norm(change))
    if norm <= most or not values.any():
        return values
    reasons.append(f"{name} limited")
    return previous + change * (most / norm)
