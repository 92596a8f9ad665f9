"""What the expert knows at one control step, read from robot_obs and scene_obs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_sim.environment import TimeStep


def rotation_of(euler: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of fixed-axis xyz angles (rad): R = Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(euler), np.cos(euler)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def wrapped(angle: np.ndarray | float) -> np.ndarray:
    """Angles brought into [-pi, pi)."""
    return (np.asarray(angle) + math.pi) % (2 * math.pi) - math.pi


@dataclass(frozen=True)
class BlockPose:
    """Where a block is: position (3,) in m and rotation (3, 3), both in the world."""

    position: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class View:
    """One control step as the expert sees it.

    Attributes:
        position: tool centre point (3,) in m.
        euler: of the tool (3,), fixed-axis xyz in rad.
        width: opening of the gripper in m.
        closing: whether the last gripper command was to close.
        slider, drawer, button, switch: joint positions in m.
        lightbulb, led: whether they are lit.
        blocks: pose of each block by colour.
    """

    position: np.ndarray
    euler: np.ndarray
    width: float
    closing: bool
    slider: float
    drawer: float
    button: float
    switch: float
    lightbulb: bool
    led: bool
    blocks: dict[str, BlockPose]

    @classmethod
    def of(cls, step: TimeStep, block_order: Sequence[str]) -> View:
        """Reads a time step; `block_order` is the order of the blocks in scene_obs."""
        return cls.of_state(step.robot_obs, step.scene_obs, block_order)

    @classmethod
    def of_state(cls, robot: np.ndarray, scene: np.ndarray, block_order: Sequence[str]) -> View:
        """Reads robot_obs (15,) and scene_obs (24,)."""
        poses = scene[6:].reshape(3, 6)
        return cls(
            position=robot[:3].copy(),
            euler=robot[3:6].copy(),
            width=float(robot[6]),
            closing=bool(robot[14] < 0.0),
            slider=float(scene[0]),
            drawer=float(scene[1]),
            button=float(scene[2]),
            switch=float(scene[3]),
            lightbulb=bool(scene[4] > 0.5),
            led=bool(scene[5] > 0.5),
            blocks={
                colour: BlockPose(pose[:3].copy(), rotation_of(pose[3:]))
                for colour, pose in zip(block_order, poses, strict=True)
            },
        )
