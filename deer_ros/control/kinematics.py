"""Forward kinematics of the Franka Panda: from seven joint angles to the pose of the tool centre point (tcp).

Frames and offsets are those of the arm's published URDF (franka_description); euler angles follow CALVIN: fixed-axis
roll, pitch, yaw, that is R = Rz(yaw) Ry(pitch) Rx(roll).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError

JOINT_COUNT = 7

_JOINT_ORIGINS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((0.0, 0.0, 0.333), 0.0),
    ((0.0, 0.0, 0.0), -np.pi / 2),
    ((0.0, -0.316, 0.0), np.pi / 2),
    ((0.0825, 0.0, 0.0), np.pi / 2),
    ((-0.0825, 0.384, 0.0), -np.pi / 2),
    ((0.0, 0.0, 0.0), np.pi / 2),
    ((0.088, 0.0, 0.0), np.pi / 2),
)
"""Translation (m) and rotation about x (rad) from each joint's parent to the joint, which then turns about its z."""
_FLANGE_M = 0.107
"""From joint 7 along its z to the flange."""
_HAND_ANGLE_RAD = -np.pi / 4
"""Turn of the hand about the flange's z."""


@dataclass(frozen=True)
class ArmGeometry:
    """Where the arm stands and where its tool centre point is.

    Attributes:
        base_position_m: of the arm's base in the frame that poses are told in (CALVIN's world by default).
        tcp_offset_m: from the hand along its z to the tool centre point.
    """

    base_position_m: tuple[float, float, float] = (-0.34, -0.46, 0.24)
    tcp_offset_m: float = 0.14

    def __post_init__(self) -> None:
        if len(self.base_position_m) != 3 or not np.isfinite([*self.base_position_m, self.tcp_offset_m]).all():
            raise ConfigError(f"arm geometry {self} must hold three finite coordinates and a finite offset, in m")

    def tcp_pose(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and euler angles (3,) in rad of the tool centre point, for joint angles (7,)."""
        position, rotation = self.tcp_matrix(joints_rad)
        return position, euler_from_rotation(rotation)

    def tcp_matrix(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and rotation (3, 3) of the tool centre point, for joint angles (7,)."""
        joints = np.asarray(joints_rad, dtype=np.float64)
        if joints.shape != (JOINT_COUNT,) or not np.isfinite(joints).all():
            raise ConfigError(f"joint angles {joints.tolist()} must be {JOINT_COUNT} finite values in rad")
        rotation = np.eye(3)
        position = np.array(self.base_position_m)
        for (offset, twist), angle in zip(_JOINT_ORIGINS, joints, strict=True):
            position = position + rotation @ np.array(offset)
            rotation = rotation @ _about_x(twist) @ _about_z(float(angle))
        position = position + rotation @ np.array((0.0, 0.0, _FLANGE_M + self.tcp_offset_m))
        return position, rotation @ _about_z(_HAND_ANGLE_RAD)


def euler_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (3,) in rad of a rotation matrix (3, 3); pitch is in [-pi/2, pi/2]."""
    pitch = np.arcsin(np.clip(-rotation[2, 0], -1.0, 1.0))
    roll = np.arctan2(rotation[2, 1], rotation[2, 2])
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.array((roll, pitch, yaw))


def _about_x(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array(((1.0, 0.0, 0.0), (0.0, cosine, -sine), (0.0, sine, cosine)))


def _about_z(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array(((cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, 1.0)))
