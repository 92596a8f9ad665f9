"""The two cameras, drawn on the CPU by pybullet's TinyRenderer, or by OpenGL through EGL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deer_sim.engine.fixtures import Fixtures
from deer_sim.engine.layers import Layers
from deer_sim.engine.robot import CAMERA_LINK, Robot
from deer_sim.engine.scene import Lens, Scene

TINY, EGL = "pybullet TinyRenderer", "pybullet EGL"
"""What draws pictures. The two don't look alike: scores of policies that see them can't be compared."""


_POSITION_DIGITS = 6
"""Doors that have moved by less, in decimals of a metre, are where they were; a pixel is 3.5 mm."""


def _in_front(
    picture: np.ndarray, depth: np.ndarray, other: np.ndarray, other_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Puts a picture with its depth in front of another; where both are equally near, the first is seen."""
    behind = (depth > other_depth) | np.isinf(depth)
    np.copyto(picture, other, where=behind[:, :, None])
    return picture, np.minimum(depth, other_depth)


def _matrix(values: Any) -> np.ndarray:
    """pybullet's list of sixteen numbers, column by column, as a matrix (4, 4)."""
    return np.array(values).reshape(4, 4).T


@dataclass(frozen=True)
class Lenses:
    """How the two cameras project, as (4, 4) matrices of OpenGL's conventions.

    Attributes:
        static_projection, static_view: of the camera in front of the table, from places in the world.
        gripper_projection, gripper_view_from_tool: of the camera on the hand, from places in the tool's frame.
    """

    static_projection: np.ndarray
    static_view: np.ndarray
    gripper_projection: np.ndarray
    gripper_view_from_tool: np.ndarray


class Cameras:
    """CALVIN's static camera in front of the table and the one that rides on the hand."""

    def __init__(
        self, client: Any, scene: Scene, robot: Robot, fixtures: Fixtures, blocks: set[int], renderer: str, exact: bool
    ) -> None:
        """Finds the cameras.

        Args:
            client: a `pybullet_utils.bullet_client.BulletClient` in which everything is loaded.
            scene, robot, fixtures, blocks: what is loaded; `blocks` are bodies.
            renderer: TINY or EGL.
            exact: draws everything each time, instead of what stands still once.
        """
        self._client = client
        self._scene = scene
        self._robot_body = robot.body
        self._fixtures = fixtures
        self._link = next(index for index, name in robot.link_names.items() if name == CAMERA_LINK)
        self._tool_link = scene.arm.tool_link
        # What TinyRenderer is told keeps it from drawing shadows, which official pictures of it lack.
        self._how = {"renderer": client.ER_TINY_RENDERER, "shadow": 0} if renderer == TINY else {}
        self._layers = Layers(client, blocks, fixtures) if renderer == TINY and not exact else None
        settings = scene.cameras
        self._static_lens, self._gripper_lens = settings.static, settings.gripper
        self._static_view = client.computeViewMatrix(settings.eye, settings.target, settings.up)
        self._static_projection = self._projection(settings.static)
        self._gripper_projection = self._projection(settings.gripper)
        self._still: tuple[np.ndarray, np.ndarray] | None = None
        self._furniture: tuple[np.ndarray, np.ndarray] | None = None
        self._furniture_state: tuple[Any, ...] = ()
        if renderer == EGL:
            # OpenGL's first pictures lack shadows.
            self.static(), self.gripper()

    def rebuilt(self, fixtures: Fixtures) -> None:
        """Has to be called when the client was filled anew, with the same bodies."""
        self._fixtures = fixtures
        if self._layers is not None:
            self._layers.rebuilt(fixtures)

    def static(self) -> np.ndarray:
        """(rows, columns, 3) uint8, row 0 at the top."""
        draw = (self._static_lens, self._static_view, self._static_projection)
        if self._layers is None:
            return self._backed(*draw, *self._draw(*draw))
        if self._still is None:
            self._layers.show_only(self._layers.still)
            picture, depth = self._draw(*draw)
            self._still = self._backed(*draw, picture, depth), depth
        state = (*np.round(self._fixtures.positions(), _POSITION_DIGITS), self._fixtures.lightbulb, self._fixtures.led)
        if self._furniture is None or state != self._furniture_state:
            self._layers.show_only(self._layers.fixtures)
            self._furniture, self._furniture_state = _in_front(*self._draw(*draw), *self._still), state
        self._layers.show_only(self._layers.moving)
        return _in_front(*self._draw(*draw), *self._furniture)[0]

    def lenses(self) -> Lenses:
        """How the cameras project; see `Lenses`."""
        client = self._client
        eye, rotation = self._on_hand()
        view = np.eye(4)
        tool_place, tool_turn = client.getLinkState(self._robot_body, self._tool_link)[:2]
        view[:3, :3] = np.array(client.getMatrixFromQuaternion(tool_turn)).reshape(3, 3)
        view[:3, 3] = tool_place
        return Lenses(
            _matrix(self._static_projection),
            _matrix(self._static_view),
            _matrix(self._gripper_projection),
            _matrix(self._gripper_view(eye, rotation)) @ view,
        )

    def _on_hand(self) -> tuple[np.ndarray, np.ndarray]:
        """Place (3,) and rotation (3, 3) of the camera on the hand."""
        position, orientation = self._client.getLinkState(self._robot_body, self._link)[:2]
        return np.array(position), np.array(self._client.getMatrixFromQuaternion(orientation)).reshape(3, 3)

    def _gripper_view(self, eye: np.ndarray, rotation: np.ndarray) -> Any:
        """pybullet's view matrix of the camera on the hand."""
        target = eye + rotation[:, 1]
        return self._client.computeViewMatrix(eye.tolist(), target.tolist(), (-rotation[:, 2]).tolist())

    def gripper(self) -> np.ndarray:
        """(rows, columns, 3) uint8, row 0 at the top."""
        eye, rotation = self._on_hand()
        view = self._gripper_view(eye, rotation)
        if self._layers is not None:
            half_angle = np.deg2rad(self._gripper_lens.fov_deg / 2)
            self._layers.show_only(self._layers.in_view(eye, rotation[:, 1], -rotation[:, 2], half_angle))
        draw = (self._gripper_lens, view, self._gripper_projection)
        return self._backed(*draw, *self._draw(*draw))

    def _projection(self, lens: Lens) -> Any:
        """pybullet's projection matrix of a lens."""
        return self._client.computeProjectionMatrixFOV(lens.fov_deg, lens.columns / lens.rows, lens.near_m, lens.far_m)

    def _draw(self, lens: Lens, view: Any, projection: Any) -> tuple[np.ndarray, np.ndarray]:
        """Draws the bodies: RGB (rows, columns, 3) uint8, and depth (rows, columns), infinite where no body is."""
        _, _, pixels, depth, bodies = self._client.getCameraImage(
            lens.columns, lens.rows, view, projection, **self._how
        )
        shape = (lens.rows, lens.columns)
        picture = np.array(np.reshape(pixels, (*shape, 4))[:, :, :3], dtype=np.uint8)
        return picture, np.where(np.reshape(bodies, shape) < 0, np.inf, np.reshape(depth, shape))

    def _backed(self, lens: Lens, view: Any, projection: Any, picture: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The picture, with the scene's backdrop where no body is."""
        empty = np.isinf(depth)
        backdrop = self._scene.backdrop(lens, view, projection, empty)
        if backdrop is not None:
            picture[empty] = backdrop
        return picture
