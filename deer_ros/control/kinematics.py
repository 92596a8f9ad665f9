"""Kinematics of the Franka Panda: from seven joint angles and speeds to pose and twist of the tool centre point (tcp).

Frames and offsets are those of the arm's published URDF (franka_description); euler angles follow CALVIN: fixed-axis
roll, pitch, yaw, that is R = Rz(yaw) Ry(pitch) Rx(roll).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist

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
        position, rotation = self.tcp_frame(joints_rad)
        return position, euler_from_rotation(rotation)

    def tcp_frame(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and rotation (3, 3) of the tool centre point, for joint angles (7,)."""
        position, rotation, _, _ = self._chain(joints_rad)
        return position, rotation @ _HAND

    def jacobian(self, joints_rad: np.ndarray) -> np.ndarray:
        """Maps joint speeds to the twist of the tool centre point in base axes: (6, 7), linear rows first."""
        position, _, origins, axes = self._chain(joints_rad)
        lever = position - origins
        jacobian = np.empty((6, JOINT_COUNT))
        jacobian[0] = axes[:, 1] * lever[:, 2] - axes[:, 2] * lever[:, 1]
        jacobian[1] = axes[:, 2] * lever[:, 0] - axes[:, 0] * lever[:, 2]
        jacobian[2] = axes[:, 0] * lever[:, 1] - axes[:, 1] * lever[:, 0]
        jacobian[3:] = axes.T
        return jacobian

    def tcp_twist(self, joints_rad: np.ndarray, speeds_rad_s: np.ndarray) -> Twist:
        """Twist of the tool centre point for joint angles (7,) and speeds (7,); raises ConfigError if not finite."""
        speeds = np.asarray(speeds_rad_s, dtype=np.float64)
        if speeds.shape != (JOINT_COUNT,) or not np.isfinite(speeds).all():
            raise ConfigError(f"joint speeds {speeds.tolist()} must be {JOINT_COUNT} finite values in rad/s")
        twist = self.jacobian(joints_rad) @ speeds
        return Twist(twist[:3], twist[3:])

    def _chain(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Position (3,) of the tool centre point, rotation (3, 3) of the flange, origins and axes (7, 3) of joints."""
        joints = np.asarray(joints_rad, dtype=np.float64)
        if joints.shape != (JOINT_COUNT,) or not np.isfinite(joints).all():
            raise ConfigError(f"joint angles {joints.tolist()} must be {JOINT_COUNT} finite values in rad")
        frames = np.empty((JOINT_COUNT, 4, 4))
        frame = np.eye(4)
        frame[:3, 3] = self.base_position_m
        for index, step in enumerate(_JOINT_FRAMES @ _turned(joints)):
            frame = frames[index] = frame @ step
        rotation, axes = frame[:3, :3], frames[:, :3, 2]
        return frame[:3, 3] + axes[-1] * (_FLANGE_M + self.tcp_offset_m), rotation, frames[:, :3, 3], axes


def euler_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (3,) in rad of a rotation matrix (3, 3); pitch is in [-pi/2, pi/2]."""
    (xx, _, _), (yx, _, _), (zx, zy, zz) = rotation.tolist()
    return np.array((math.atan2(zy, zz), math.asin(min(1.0, max(-1.0, -zx))), math.atan2(yx, xx)))


def _turned(angles_rad: np.ndarray) -> np.ndarray:
    """Transforms (n, 4, 4) that turn about z by each of the angles (n,)."""
    frames = np.zeros((len(angles_rad), 4, 4))
    frames[:, 0, 0] = frames[:, 1, 1] = np.cos(angles_rad)
    frames[:, 1, 0] = np.sin(angles_rad)
    frames[:, 0, 1] = -frames[:, 1, 0]
    frames[:, 2, 2] = frames[:, 3, 3] = 1.0
    return frames


def _origin(offset_m: tuple[float, float, float], twist_rad: float) -> np.ndarray:
    """Transform (4, 4) from a joint's parent to the joint before it turns."""
    cosine, sine = np.cos(twist_rad), np.sin(twist_rad)
    x, y, z = offset_m
    return np.array(((1, 0, 0, x), (0, cosine, -sine, y), (0, sine, cosine, z), (0, 0, 0, 1)), dtype=np.float64)


_JOINT_FRAMES = np.stack([_origin(offset_m, twist_rad) for offset_m, twist_rad in _JOINT_ORIGINS])
_HAND = _turned(np.array([_HAND_ANGLE_RAD]))[0, :3, :3]
