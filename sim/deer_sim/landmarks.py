"""Where things appear in the two pictures of a play table: places of blocks and fixtures, from recorded states."""

from __future__ import annotations

import numpy as np

from deer_sim.engine.cameras import Lenses
from deer_sim.environment import BLOCKS
from deer_sim.expert.blocks import base_for
from deer_sim.expert.expert import block_of
from deer_sim.expert.fixtures import BUTTON_Y_M, DOOR_HANDLE_X_M
from deer_sim.expert.view import View, rotation_of
from deer_sim.playtable.scene import SURFACE_Z_M, Scene

LANDMARKS = (*BLOCKS, "door handle", "drawer handle", "button", "switch")
_DOOR_HANDLE_YZ_M = (-0.02, 0.545)
_DRAWER_HANDLE_YZ_M = (-0.24, 0.365)
_SWITCH_YZ_M = np.array([0.0205, 0.527])
_SWITCH_AXIS_YZ = np.array([0.5, 0.866])


_SUBJECTS = {
    "place_in_drawer": "drawer handle",
    "place_in_slider": "door handle",
    "open_drawer": "drawer handle",
    "close_drawer": "drawer handle",
    "move_slider": "door handle",
    "lightbulb": "switch",
    "led": "button",
}
"""By a part of the task's name; the other tasks are about a block."""


class Landmarks:
    """Projects the landmarks of one table into its cameras."""

    def __init__(self, scene: Scene, lenses: Lenses) -> None:
        """Args:
        scene: where its fixtures are; CALVIN's own scene of that letter has them in the same places.
        lenses: of its cameras; the one on the hand keeps its place on the tool.
        """
        self._scene = scene
        self._static = lenses.static_projection @ lenses.static_view
        self._gripper = lenses.gripper_projection @ lenses.gripper_view_from_tool

    def points(self, scene_obs: np.ndarray) -> np.ndarray:
        """Places (steps, landmarks, 3) in m from states (steps, 24)."""
        scene, steps = self._scene, len(scene_obs)
        poses = scene_obs[:, 6:].reshape(steps, len(BLOCKS), -1)
        found = np.zeros((steps, len(LANDMARKS), 3))
        for index, colour in enumerate(BLOCKS):
            found[:, index] = poses[:, scene.block_order.index(colour), :3]
        slider, drawer, switch = scene_obs[:, 0], scene_obs[:, 1], scene_obs[:, 3]
        found[:, 3] = [0.0, *_DOOR_HANDLE_YZ_M]
        found[:, 3, 0] = scene.slider_x + DOOR_HANDLE_X_M - slider
        found[:, 4] = [scene.drawer_x, *_DRAWER_HANDLE_YZ_M]
        found[:, 4, 1] -= drawer
        found[:, 5] = [scene.button_x, BUTTON_Y_M, SURFACE_Z_M]
        found[:, 6, 0] = scene.switch_x
        found[:, 6, 1:] = _SWITCH_YZ_M + switch[:, None] * _SWITCH_AXIS_YZ
        return found

    def focus(self, task: str, robot_obs: np.ndarray, scene_obs: np.ndarray) -> np.ndarray:
        """What a task is about, and where it is; where a block is to be put, the place that it is put to.

        Args:
            task: its name.
            robot_obs, scene_obs: states (steps, 15) and (steps, 24), the first one of them when the task begins.

        Returns:
            (steps, 5) float32: place in m, and sine and cosine of twice the yaw of a block, 0 for other things.
        """
        start = View.of_state(robot_obs[0], scene_obs[0], self._scene.block_order)
        name = _subject(task, start, self._scene)
        found = np.zeros((len(scene_obs), 5))
        found[:, :3] = self.points(scene_obs)[:, LANDMARKS.index(name)]
        if name in BLOCKS:
            yaw = scene_obs[:, 6:].reshape(len(scene_obs), len(BLOCKS), -1)[:, self._scene.block_order.index(name), 5]
            found[:, 3], found[:, 4] = np.sin(2.0 * yaw), np.cos(2.0 * yaw)
        return found.astype(np.float32)

    def __call__(self, robot_obs: np.ndarray, scene_obs: np.ndarray) -> np.ndarray:
        """Where the landmarks appear, whatever may stand in front of them.

        Args:
            robot_obs, scene_obs: states (steps, 15) and (steps, 24).

        Returns:
            (steps, views, landmarks, 3) float32: column and row as a share of the picture's width and height, from its
            top left corner, and 1 where the landmark lies within the picture, else 0.
        """
        points = self.points(scene_obs)
        tool = np.stack([rotation_of(euler) for euler in robot_obs[:, 3:6]])
        on_tool = np.einsum("sij,spi->spj", tool, points - robot_obs[:, None, :3])
        return np.stack([_seen(self._static, points), _seen(self._gripper, on_tool)], axis=1).astype(np.float32)


def _subject(task: str, start: View, scene: Scene) -> str:
    for part, name in _SUBJECTS.items():
        if part in task:
            return name
    block = block_of(task, start, scene)
    return base_for(start, block) if task == "stack_block" else block


def _seen(camera: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Column, row and presence (steps, landmarks, 3) of points in a camera's coordinates, (4, 4) being its matrix."""
    clip = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=2) @ camera.T
    depth = clip[..., 3]
    safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    column, row = (1.0 + clip[..., 0] / safe) / 2.0, (1.0 - clip[..., 1] / safe) / 2.0
    inside = (depth > 0.0) & (column >= 0.0) & (column < 1.0) & (row >= 0.0) & (row < 1.0)
    return np.where(inside[..., None], np.stack([column, row, inside], axis=-1), 0.0)
