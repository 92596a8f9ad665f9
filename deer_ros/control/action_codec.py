"""Turns CALVIN's relative action into a twist of the tool centre point, and back without loss.

A relative action moves the target by xyz steps and adds steps to its euler angles; a twist is a linear and an angular
velocity in base axes. Euler rates and angular velocity differ by a matrix that depends on the orientation (Craig,
'Introduction to Robotics', chapter 5), so both directions need the euler angles at the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD

MIN_COSINE = 0.05
"""Below this cosine of the pitch, euler rates no longer describe a rotation usefully: the codec refuses."""


@dataclass(frozen=True)
class Twist:
    """Velocity of the tool centre point in base axes: linear (3,) in m/s, angular (3,) in rad/s; both finite."""

    linear: np.ndarray
    angular: np.ndarray

    def __post_init__(self) -> None:
        for name in ("linear", "angular"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != (3,) or not all(map(math.isfinite, values.tolist())):
                raise ConfigError(
                    f"{name} velocity {values.tolist()} must be three finite values; nothing is done with it"
                )
            object.__setattr__(self, name, values)

    @property
    def still(self) -> bool:
        """Whether it is standstill."""
        return not (self.linear.any() or self.angular.any())

    @classmethod
    def zero(cls) -> Twist:
        """Standstill."""
        return cls(np.zeros(3), np.zeros(3))


def length(values: np.ndarray) -> float:
    """Euclidean norm of a vector (n,): what `np.linalg.norm` gives, in a quarter of its time, which counts here."""
    return math.sqrt(values.dot(values))


def twist_from_action(pose_action: np.ndarray, euler_rad: np.ndarray, rate_hz: float) -> Twist:
    """The twist that, held for one control period, makes the step of a relative action.

    Args:
        pose_action: (6,) xyz and euler xyz in [-1, 1], as in `deer_policies.interfaces.Action`.
        euler_rad: (3,) present roll, pitch, yaw.
        rate_hz: control rate.
    """
    euler_rate = np.asarray(pose_action[3:6], dtype=np.float64) * MAX_ROTATION_STEP_RAD * rate_hz
    linear = np.asarray(pose_action[:3], dtype=np.float64) * MAX_POSITION_STEP_M * rate_hz
    return Twist(linear, _rate_matrix(euler_rad) @ euler_rate)


def action_from_twist(twist: Twist, euler_rad: np.ndarray, rate_hz: float) -> np.ndarray:
    """The relative action's pose part (6,), float64 and not clipped, that `twist` makes in one control period."""
    euler_rate = np.linalg.solve(_rate_matrix(euler_rad), twist.angular)
    return np.concatenate(
        (twist.linear / (MAX_POSITION_STEP_M * rate_hz), euler_rate / (MAX_ROTATION_STEP_RAD * rate_hz))
    )


def _rate_matrix(euler_rad: np.ndarray) -> np.ndarray:
    """Maps rates of roll, pitch, yaw to angular velocity in base axes, for R = Rz(yaw) Ry(pitch) Rx(roll)."""
    _, pitch, yaw = (float(angle) for angle in euler_rad)
    if abs(math.cos(pitch)) < MIN_COSINE:
        raise ConfigError(
            f"pitch is {pitch:.3f} rad, too near +-pi/2 for euler steps; turn the tool away from there by hand"
        )
    cos_pitch, cos_yaw, sin_yaw = math.cos(pitch), math.cos(yaw), math.sin(yaw)
    return np.array(
        ((cos_pitch * cos_yaw, -sin_yaw, 0.0), (cos_pitch * sin_yaw, cos_yaw, 0.0), (-math.sin(pitch), 0.0, 1.0))
    )
