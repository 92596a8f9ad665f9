"""The cameras as computer vision describes them, drawn by TinyRenderer: focal lengths, principal point, pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_sim.engine.cameras import Lenses

_OPTICAL_FROM_OPENGL = np.diag((1.0, -1.0, -1.0, 1.0))
"""OpenGL's camera has y up and looks along -z; an optical frame (REP 103) has y down and looks along z."""


@dataclass(frozen=True)
class Pinhole:
    """A camera without distortion.

    A point (x, y, z) in m in the optical frame is seen at column fx x / z + cx and row fy y / z + cy; whole numbers are
    the middles of pixels.

    Attributes:
        columns, rows: size of its pictures.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels.
        parent_from_optical: (4, 4) pose of the optical frame in the frame that it is fixed to.
    """

    columns: int
    rows: int
    fx: float
    fy: float
    cx: float
    cy: float
    parent_from_optical: np.ndarray

    def pixel(self, point: np.ndarray) -> np.ndarray:
        """Column and row (2,) at which a point (3,) of the parent frame, in front of the camera, is seen."""
        x, y, z, _ = np.linalg.solve(self.parent_from_optical, np.append(point, 1.0))
        return np.array((self.fx * x / z + self.cx, self.fy * y / z + self.cy))


def static_pinhole(lenses: Lenses, shape: tuple[int, ...]) -> Pinhole:
    """The camera in front of the table, fixed to the world; `shape` is that of its pictures (rows, columns, ...)."""
    return _pinhole(lenses.static_projection, lenses.static_view, shape)


def gripper_pinhole(lenses: Lenses, shape: tuple[int, ...]) -> Pinhole:
    """The camera on the hand, fixed to the tool's frame."""
    return _pinhole(lenses.gripper_projection, lenses.gripper_view_from_tool, shape)


def _pinhole(projection: np.ndarray, view: np.ndarray, shape: tuple[int, ...]) -> Pinhole:
    """Out of OpenGL's matrices. TinyRenderer takes a pixel's value at its lower left corner, half a pixel beside where
    OpenGL does; the principal point tells where its pictures have things."""
    rows, columns = shape[:2]
    return Pinhole(
        columns,
        rows,
        fx=float(projection[0, 0]) * columns / 2,
        fy=float(projection[1, 1]) * rows / 2,
        cx=columns * (1.0 - float(projection[0, 2])) / 2,
        cy=rows * (1.0 + float(projection[1, 2])) / 2 - 1.0,
        parent_from_optical=np.linalg.inv(_OPTICAL_FROM_OPENGL @ view),
    )
