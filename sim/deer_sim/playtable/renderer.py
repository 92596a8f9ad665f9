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


class Cameras:
    """CALVIN's static camera in front of the table and the one that rides on the hand."""

    def __init__(self, client: Any, robot_body: int) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient` in which the robot is loaded."""
        self._client = client
        self._robot_body = robot_body
        self._static_view = client.computeViewMatrix(_STATIC_EYE, _STATIC_TARGET, _STATIC_UP)
        self._static_projection = client.computeProjectionMatrixFOV(_STATIC_FOV_DEG, 1.0, _NEAR_M, _STATIC_FAR_M)
        self._gripper_projection = client.computeProjectionMatrixFOV(_GRIPPER_FOV_DEG, 1.0, _NEAR_M, _GRIPPER_FAR_M)

    def static(self) -> np.ndarray:
        """(200, 200, 3) uint8, row 0 at the top."""
        return self._picture(STATIC_SHAPE, self._static_view, self._static_projection)

    def gripper(self) -> np.ndarray:
        """(84, 84, 3) uint8, row 0 at the top."""
        client = self._client
        position, orientation = client.getLinkState(self._robot_body, CAMERA_LINK)[:2]
        rotation = np.array(client.getMatrixFromQuaternion(orientation)).reshape(3, 3)
        target = np.array(position) + rotation[:, 1]
        view = client.computeViewMatrix(position, target.tolist(), (-rotation[:, 2]).tolist())
        return self._picture(GRIPPER_SHAPE, view, self._gripper_projection)

    def _picture(self, shape: tuple[int, int, int], view: Any, projection: Any) -> np.ndarray:
        """Draws one view and drops the alpha channel."""
        rows, columns, _ = shape
        pixels = self._client.getCameraImage(
            columns, rows, view, projection, renderer=self._client.ER_TINY_RENDERER, shadow=0
        )[2]
        return np.ascontiguousarray(np.reshape(pixels, (rows, columns, 4))[:, :, :3], dtype=np.uint8)
