"""Draws less with TinyRenderer and gets the same picture: what stands still once, and nothing that is out of view.

TinyRenderer's time goes with the triangles that it is given, seen or not; it skips a shape whose colour is transparent.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from deer_sim.engine.fixtures import Fixtures
from deer_sim.engine.scene import Rgba

Part = tuple[int, int]
"""A body and one of its links."""


@lru_cache(maxsize=64)
def _corners(file: str) -> np.ndarray:
    """Corners (8, 3) of the box around an OBJ mesh, before scaling."""
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], dtype=np.float64)
    return np.array(list(product(*zip(vertices.min(axis=0), vertices.max(axis=0), strict=True))))


class Layers:
    """The drawn parts of a physics client, each of which can be hidden."""

    def __init__(self, client: Any, free_bodies: set[int], fixtures: Fixtures) -> None:
        """Takes stock of the client.

        Args:
            client: a `pybullet_utils.bullet_client.BulletClient` in which everything is loaded.
            free_bodies: bodies that can move as a whole; others are fixed to the world.
            fixtures: of the table, whose parts move now and then, and whose lights change their colours.
        """
        self._client = client
        self._fixtures = fixtures
        self._colours: dict[Part, list[Rgba]] = {}
        self._boxes: dict[Part, np.ndarray] = {}
        still: set[Part] = set()
        for body in (client.getBodyUniqueId(index) for index in range(client.getNumBodies())):
            fixed = set() if body in free_bodies else {-1}
            for joint in range(client.getNumJoints(body)):
                info = client.getJointInfo(body, joint)
                if info[2] == client.JOINT_FIXED and info[16] in fixed:
                    fixed.add(joint)
            for shape in client.getVisualShapeData(body):
                part = (body, shape[1])
                self._colours.setdefault(part, []).append(shape[7])
                if part in fixtures.light_colours():
                    continue
                if shape[1] in fixed:
                    still.add(part)
                elif shape[2] == client.GEOM_MESH and shape[1] >= 0 and shape[4].endswith(b".obj"):
                    self._boxes[part] = self._in_link(shape)
        alone = {part for part, colours in self._colours.items() if len(colours) == 1}
        self._boxes = {part: box for part, box in self._boxes.items() if part in alone}
        self.still = frozenset(still)
        self.fixtures = frozenset(part for part in self._colours if part[0] == fixtures.body) - self.still
        self.moving = frozenset(self._colours) - self.still - self.fixtures
        self._hidden: set[Part] = set()

    def rebuilt(self, fixtures: Fixtures) -> None:
        """Has to be called when the client was filled anew, with the same bodies: all parts are to be seen again."""
        self._fixtures = fixtures
        self._hidden = set()

    def show_only(self, parts: frozenset[Part]) -> None:
        """Hides all other parts."""
        for part in self._colours:
            if part in parts and part in self._hidden:
                self._hidden.remove(part)
                self._show(part)
            elif part not in parts and part not in self._hidden:
                self._hidden.add(part)
                self._client.changeVisualShape(*part, rgbaColor=(*self._colours[part][0][:3], 0.0))

    def in_view(self, eye: np.ndarray, forward: np.ndarray, up: np.ndarray, half_angle_rad: float) -> frozenset[Part]:
        """All parts but those that lie beside or behind a camera with a square picture.

        Args:
            eye: (3,) where it stands, m.
            forward, up: (3,) unit vectors at right angles.
            half_angle_rad: half of its field of view.
        """
        cosine, sine = np.cos(half_angle_rad), np.sin(half_angle_rad)
        sideways = np.cross(forward, up)
        edges = [side * cosine * axis - sine * forward for axis in (sideways, up) for side in (1, -1)]
        outwards = np.array([-forward, *edges]).T
        outside = set()
        for part, corners in self._boxes.items():
            position, orientation = self._client.getLinkState(*part)[4:6]
            turn = np.array(self._client.getMatrixFromQuaternion(orientation)).reshape(3, 3)
            # Outside is what lies beyond one of the five planes around the view as a whole.
            if ((corners @ turn.T + (position - eye)) @ outwards > 0.0).all(axis=0).any():
                outside.add(part)
        return frozenset(self._colours) - outside

    def _show(self, part: Part) -> None:
        """Gives a part its colours back."""
        colours = self._colours[part]
        if len(colours) == 1:
            now = self._fixtures.light_colours().get(part, colours[0])
            self._client.changeVisualShape(*part, rgbaColor=now)
            return
        for index, colour in enumerate(colours):
            self._client.changeVisualShape(*part, shapeIndex=index, rgbaColor=colour)

    def _in_link(self, shape: Any) -> np.ndarray:
        """Corners (8, 3) of a box around one of pybullet's visual shapes, in the link's frame."""
        turn = np.array(self._client.getMatrixFromQuaternion(shape[6])).reshape(3, 3)
        return (_corners(shape[4].decode()) * shape[3]) @ turn.T + shape[5]
