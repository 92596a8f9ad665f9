"""The two cameras, drawn on the CPU by pybullet's TinyRenderer."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_policies.interfaces import GRIPPER_SHAPE, STATIC_SHAPE
from deer_sim.playtable.robot import CAMERA_LINK

NAME = "pybullet TinyRenderer"
_STATIC_EYE = (2.871459009488717, -2.166602199425597, 2.555159848480571)
_STATIC_TARGET = (-0.026242351159453392, -0.0302329882979393, 0.3920000493526459)
_STATIC_UP = (0.4041403970338857, 0.22629790978217404, 0.8862616969685161)
_STATIC_FOV_DEG, _GRIPPER_FOV_DEG = 10.0, 75.0
_NEAR_M, _STATIC_FAR_M, _GRIPPER_FAR_M = 0.01, 10.0, 2.0

_TILE_M = 1.0
_TILES = ((236, 236, 238), (168, 186, 214))
_SKY = (246, 246, 248)


def hidden_shape(client: Any) -> int:
    """A visual shape that no camera sees, for the floor, which is drawn by `Cameras` itself."""
    speck = [1e-4, 1e-4, 1e-4]
    return client.createVisualShape(client.GEOM_BOX, halfExtents=speck, visualFramePosition=[0.0, 0.0, -10.0])


class Cameras:
    """CALVIN's static camera in front of the table and the one that rides on the hand."""

    def __init__(self, client: Any, robot_body: int) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient` in which the robot is loaded."""
        self._client = client
        self._robot_body = robot_body
        self._static_view = client.computeViewMatrix(_STATIC_EYE, _STATIC_TARGET, _STATIC_UP)
        self._static_projection = client.computeProjectionMatrixFOV(_STATIC_FOV_DEG, 1.0, _NEAR_M, _STATIC_FAR_M)
        everywhere = np.ones(STATIC_SHAPE[:2], dtype=bool)
        floor = _floor(STATIC_SHAPE, self._static_view, self._static_projection, everywhere)
        self._static_floor = floor.reshape(STATIC_SHAPE)
        self._gripper_projection = client.computeProjectionMatrixFOV(_GRIPPER_FOV_DEG, 1.0, _NEAR_M, _GRIPPER_FAR_M)

    def static(self) -> np.ndarray:
        """(200, 200, 3) uint8, row 0 at the top."""
        picture, empty = self._picture(STATIC_SHAPE, self._static_view, self._static_projection)
        picture[empty] = self._static_floor[empty]
        return picture

    def gripper(self) -> np.ndarray:
        """(84, 84, 3) uint8, row 0 at the top."""
        client = self._client
        position, orientation = client.getLinkState(self._robot_body, CAMERA_LINK)[:2]
        rotation = np.array(client.getMatrixFromQuaternion(orientation)).reshape(3, 3)
        target = np.array(position) + rotation[:, 1]
        view = client.computeViewMatrix(position, target.tolist(), (-rotation[:, 2]).tolist())
        picture, empty = self._picture(GRIPPER_SHAPE, view, self._gripper_projection)
        picture[empty] = _floor(GRIPPER_SHAPE, view, self._gripper_projection, empty)
        return picture

    def _picture(self, shape: tuple[int, int, int], view: Any, projection: Any) -> tuple[np.ndarray, np.ndarray]:
        """Draws the bodies: RGB (rows, columns, 3) uint8, and where (rows, columns) no body is."""
        rows, columns, _ = shape
        _, _, pixels, _, bodies = self._client.getCameraImage(
            columns, rows, view, projection, renderer=self._client.ER_TINY_RENDERER, shadow=0
        )
        picture = np.array(np.reshape(pixels, (rows, columns, 4))[:, :, :3], dtype=np.uint8)
        return picture, np.reshape(bodies, (rows, columns)) < 0


def _floor(shape: tuple[int, int, int], view: Any, projection: Any, wanted: np.ndarray) -> np.ndarray:
    """The checkered floor (z = 0) and the sky at the `wanted` pixels (rows, columns): (count, 3) uint8.

    One ray is intersected per pixel. Drawn by TinyRenderer, the floor would take a third of a static picture's time.
    """
    rows, columns, _ = shape
    row, column = np.nonzero(wanted)
    x, y = (column + 0.5) / columns * 2 - 1, 1 - (row + 0.5) / rows * 2
    from_clip = np.linalg.inv(np.reshape(projection, (4, 4)).T @ np.reshape(view, (4, 4)).T)
    sideways = from_clip[:, 0:1] * x + from_clip[:, 1:2] * y + from_clip[:, 3:4]
    near, far = sideways - from_clip[:, 2:3], sideways + from_clip[:, 2:3]
    near, far = near[:3] / near[3], far[:3] / far[3]
    drop = near[2] - far[2]
    downwards = drop > 1e-9
    hit = near[:2] + (near[2] / np.where(downwards, drop, 1.0)) * (far[:2] - near[:2])
    odd = np.floor(hit / _TILE_M).astype(np.int64).sum(axis=0) % 2
    return np.array([*_TILES, _SKY], dtype=np.uint8)[np.where(downwards, odd, 2)]
