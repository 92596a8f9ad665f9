"""From a twist of the tool centre point to joint positions, for arms that take joint trajectories.

Resolved motion rate control (Whitney 1969) with damped least squares near singularities (Nakamura and Hanafusa 1986).
The joints' speeds are scaled down together, so that the direction of the tool's motion is kept within their limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist
from deer_ros.control.kinematics import JOINT_COUNT, ArmGeometry

SINGULAR_BELOW = 0.05
"""Smallest singular value of the Jacobian below which damping begins."""
MOST_DAMPING = 0.05
NEAR_LIMIT_S = 0.2
"""A joint's speed towards its limit is at most what would reach it in this time, so that it rests there gently."""


@dataclass(frozen=True)
class JointLimits:
    """What the joints may do: angles (7,) in rad, speeds (7,) in rad/s, and how far measured may be off commanded."""

    low_rad: tuple[float, ...]
    high_rad: tuple[float, ...]
    speed_rad_s: tuple[float, ...]
    tracking_error_rad: float

    def __post_init__(self) -> None:
        low, high, speed = (np.asarray(values) for values in (self.low_rad, self.high_rad, self.speed_rad_s))
        sizes = {values.shape for values in (low, high, speed)}
        if sizes != {(JOINT_COUNT,)} or not np.isfinite([low, high, speed]).all() or not (low < high).all():
            raise ConfigError(
                f"joint limits {low.tolist()} to {high.tolist()} rad and {speed.tolist()} rad/s must be {JOINT_COUNT} "
                "finite values each, low below high"
            )
        if not (speed > 0.0).all() or not (np.isfinite(self.tracking_error_rad) and self.tracking_error_rad > 0.0):
            raise ConfigError(
                f"joint speeds {speed.tolist()} and tracking error {self.tracking_error_rad} must be positive, finite"
            )


class JointMotion:
    """Commanded joint positions, which begin at the measured ones and are moved on by twists."""

    def __init__(self, geometry: ArmGeometry, limits: JointLimits) -> None:
        self._geometry = geometry
        self._limits = limits
        self.joints_rad = np.zeros(JOINT_COUNT)
        self.speeds_rad_s = np.zeros(JOINT_COUNT)

    def seed(self, measured_rad: np.ndarray) -> None:
        """Begins at the measured joint angles (7,)."""
        self.joints_rad = np.array(measured_rad, dtype=np.float64)
        self.speeds_rad_s = np.zeros(JOINT_COUNT)

    def check_tracking(self, measured_rad: np.ndarray) -> None:
        """Raises ConfigError if the arm is not where it was commanded to be: something is in its way."""
        errors = np.abs(np.asarray(measured_rad) - self.joints_rad)
        worst = int(errors.argmax())
        if errors[worst] > self._limits.tracking_error_rad:
            raise ConfigError(
                f"joint {worst + 1} is {errors[worst]:.2g} rad off what was commanded, more than "
                f"{self._limits.tracking_error_rad:g}; the arm does not follow: is it blocked, or its controller off?"
            )

    def advance(self, twist: Twist, period_s: float) -> None:
        """Moves `joints_rad` on by the twist held for a period, and sets `speeds_rad_s` to the speeds of that."""
        wanted = self._inverse() @ np.concatenate((twist.linear, twist.angular))
        low, high = np.asarray(self._limits.low_rad), np.asarray(self._limits.high_rad)
        room = np.maximum(np.where(wanted > 0.0, high - self.joints_rad, self.joints_rad - low), 0.0)
        allowed = np.minimum(np.asarray(self._limits.speed_rad_s), room / max(period_s, NEAR_LIMIT_S))
        moving = wanted != 0.0
        scale = min(1.0, float((allowed[moving] / np.abs(wanted[moving])).min())) if moving.any() else 1.0
        self.speeds_rad_s = wanted * scale
        self.joints_rad = self.joints_rad + self.speeds_rad_s * period_s

    def _inverse(self) -> np.ndarray:
        """Damped pseudo-inverse (7, 6) of the Jacobian; the damping grows from zero as a singularity comes near."""
        jacobian = self._geometry.jacobian(self.joints_rad)
        smallest = float(np.linalg.svd(jacobian, compute_uv=False)[-1])
        damping = MOST_DAMPING**2 * max(0.0, 1.0 - (smallest / SINGULAR_BELOW) ** 2)
        inverse: np.ndarray = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + damping * np.eye(6))
        return inverse
