"""The two cameras, drawn on the CPU by pybullet's TinyRenderer."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_sim.engine.robot import CAMERA_LINK, Robot
from deer_sim.engine.scene import Lens, Scene

TINY, EGL = "pybullet TinyRenderer", "pybullet EGL"


class Cameras:
    """CALVIN's static camera in front of the table and the one that rides on the hand."""

    def __init__(self, client: Any, robot: Robot, scene: Scene) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient` in which the robot is loaded."""
        self._client = client
        self._scene = scene
        self._robot_body = robot.body
        self._link = next(index for index, name in robot.link_names.items() if name == CAMERA_LINK)
        settings = scene.cameras
        self._static_lens, self._gripper_lens = settings.static, settings.gripper
        self._static_view = client.computeViewMatrix(settings.eye, settings.target, settings.up)
        self._static_projection = self._projection(settings.static)
        self._gripper_projection = self._projection(settings.gripper)
        shape = (settings.static.rows, settings.static.columns)
        everywhere = np.ones(shape, dtype=bool)
        backdrop = scene.backdrop(settings.static, self._static_view, self._static_projection, everywhere)
        self._static_backdrop = None if backdrop is None else backdrop.reshape(*shape, 3)

    def static(self) -> np.ndarray:
        """(rows, columns, 3) uint8, row 0 at the top."""
        picture, empty = self._picture(self._static_lens, self._static_view, self._static_projection)
        if self._static_backdrop is not None:
            picture[empty] = self._static_backdrop[empty]
        return picture

    def gripper(self) -> np.ndarray:
        """(rows, columns, 3) uint8, row 0 at the top."""
        client = self._client
        position, orientation = client.getLinkState(self._robot_body, self._link)[:2]
        rotation = np.array(client.getMatrixFromQuaternion(orientation)).reshape(3, 3)
        target = np.array(position) + rotation[:, 1]
        view = client.computeViewMatrix(position, target.tolist(), (-rotation[:, 2]).tolist())
        picture, empty = self._picture(self._gripper_lens, view, self._gripper_projection)
        backdrop = self._scene.backdrop(self._gripper_lens, view, self._gripper_projection, empty)
        if backdrop is not None:
            picture[empty] = backdrop
        return picture

    def _projection(self, lens: Lens) -> Any:
        """pybullet's projection matrix of a lens."""
        return self._client.computeProjectionMatrixFOV(lens.fov_deg, lens.columns / lens.rows, lens.near_m, lens.far_m)

    def _picture(self, lens: Lens, view: Any, projection: Any) -> tuple[np.ndarray, np.ndarray]:
        """Draws the bodies: RGB (rows, columns, 3) uint8, and where (rows, columns) no body is."""
        _, _, pixels, _, bodies = self._client.getCameraImage(
            lens.columns, lens.rows, view, projection, renderer=self._client.ER_TINY_RENDERER, shadow=0
        )
        shape = (lens.rows, lens.columns)
        picture = np.array(np.reshape(pixels, (*shape, 4))[:, :, :3], dtype=np.uint8)
        return picture, np.reshape(bodies, shape) < 0
