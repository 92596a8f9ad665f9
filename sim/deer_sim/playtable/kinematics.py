"""Forward and inverse kinematics of the arm in plain numpy: joints to tool pose and back, without a simulator.

Geometry: Franka Emika Panda, from the URDF that pybullet ships, with the tool centre point 0.14 m beyond the hand.
"""

from __future__ import annotations

import numpy as np

from deer_policies.errors import SimulatorError
from deer_sim.playtable.robot import BASE_POSITION, LOWER_LIMITS, UPPER_LIMITS

_QUARTER = np.pi / 2
_JOINT_ORIGINS = (
    (0.0, (0.0, 0.0, 0.333)),
    (-_QUARTER, (0.0, 0.0, 0.0)),
    (_QUARTER, (0.0, -0.316, 0.0)),
    (_QUARTER, (0.0825, 0.0, 0.0)),
    (-_QUARTER, (-0.0825, 0.384, 0.0)),
    (_QUARTER, (0.0, 0.0, 0.0)),
    (_QUARTER, (0.088, 0.0, 0.0)),
)
"""Roll about x (rad) and offset (m) of each joint in the frame of the one before."""
_HAND_YAW = -np.pi / 4
_TCP_FROM_LAST_M = 0.107 + 0.14
_MAX_ITERATIONS = 100


def _turn_x(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])


def _turn_z(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def euler_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Fixed-axis xyz angles (3,) in rad of a rotation (3, 3) = Rz(yaw) Ry(pitch) Rx(roll)."""
    roll = np.arctan2(rotation[2, 1], rotation[2, 2])
    pitch = np.arctan2(-rotation[2, 0], np.hypot(rotation[2, 1], rotation[2, 2]))
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.array([roll, pitch, yaw])


def matrix_from_euler(euler: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) = Rz(yaw) Ry(pitch) Rx(roll) of fixed-axis xyz angles (3,) in rad."""
    cosine, sine = np.cos(euler[1]), np.sin(euler[1])
    turn_y = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    return _turn_z(euler[2]) @ turn_y @ _turn_x(euler[0])


def _chain(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tool position (3,), tool rotation (3, 3) and the Jacobian (6, 7) of both."""
    rotation, place = np.eye(3), np.array(BASE_POSITION)
    axes, places = [], []
    for angle, (roll, offset) in zip(joints, _JOINT_ORIGINS, strict=True):
        place = place + rotation @ np.array(offset)
        rotation = rotation @ _turn_x(roll)
        axes.append(rotation[:, 2])
        places.append(place)
        rotation = rotation @ _turn_z(angle)
    tool = place + rotation[:, 2] * _TCP_FROM_LAST_M
    rotation = rotation @ _turn_z(_HAND_YAW)
    linear = [np.cross(axis, tool - at) for axis, at in zip(axes, places, strict=True)]
    return tool, rotation, np.vstack([np.array(linear).T, np.array(axes).T])


def forward(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tool position (3,) m and fixed-axis xyz angles (3,) rad in the world, from seven joints (7,) rad."""
    tool, rotation, _ = _chain(np.asarray(joints, dtype=np.float64))
    return tool, euler_from_matrix(rotation)


def inverse(position: np.ndarray, euler: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Joints (7,) rad, near `start`, that put the tool at `position` (3,) m with fixed-axis angles `euler` (3,) rad.

    Damped least squares (Wampler 1986), to 1e-6 m and rad.

    Raises:
        SimulatorError: if no joints within the limits are found.
    """
    wanted = matrix_from_euler(np.asarray(euler, dtype=np.float64))
    joints = np.array(start, dtype=np.float64)
    for _ in range(_MAX_ITERATIONS):
        tool, rotation, jacobian = _chain(joints)
        turn = wanted @ rotation.T
        skew = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
        error = np.concatenate([np.asarray(position) - tool, 0.5 * skew])
        if np.abs(error).max() < 1e-6 and np.trace(turn) > 0.0:
            return joints
        normal = jacobian @ jacobian.T + 1e-6 * np.eye(6)
        joints = np.clip(joints + jacobian.T @ np.linalg.solve(normal, error), LOWER_LIMITS, UPPER_LIMITS)
    raise SimulatorError(
        f"the arm can't reach {np.round(position, 3).tolist()} m with angles {np.round(euler, 3).tolist()}"
    )
