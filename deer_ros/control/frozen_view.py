"""Finds a camera that goes on sending the same picture while the arm moves."""

from __future__ import annotations

import numpy as np

from deer_ros.control.kinematics import JOINT_COUNT, ArmGeometry

LEVER_M = 0.1
"""A turn of the tool counts as the way that it moves a point at this distance."""


class FrozenView:
    """Compares each picture of one camera, pixel by pixel, with the one before.

    A sensor's noise alone changes pixels, so that a camera which works does not send the same ones twice; a simulated
    one may, as long as nothing moves in its view.
    """

    def __init__(self, geometry: ArmGeometry) -> None:
        self._geometry = geometry
        self._stamp_ns: int | None = None
        self._pixels = np.empty(0, np.uint8)
        self._joints_rad = np.zeros(JOINT_COUNT)
        self._moved_m = 0.0

    def moved_m(self, stamp_ns: int, pixels: np.ndarray, joints_rad: np.ndarray) -> float:
        """How far the tool has been, at most, from where it was when the pixels last changed.

        Args:
            stamp_ns: of the picture; the same stamp again is the same picture, which proves nothing.
            pixels: of the picture.
            joints_rad: (7,) of the arm when it was taken.
        """
        if stamp_ns == self._stamp_ns:
            return self._moved_m
        self._stamp_ns = stamp_ns
        if np.array_equal(pixels, self._pixels):
            self._moved_m = max(self._moved_m, self._way_m(joints_rad))
        else:
            self._pixels, self._joints_rad, self._moved_m = pixels, joints_rad, 0.0
        return self._moved_m

    def _way_m(self, joints_rad: np.ndarray) -> float:
        position, rotation = self._geometry.tcp_frame(joints_rad)
        position_before, rotation_before = self._geometry.tcp_frame(self._joints_rad)
        cosine = (np.trace(rotation_before.T @ rotation) - 1.0) / 2.0
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        return float(np.linalg.norm(position - position_before) + LEVER_M * angle)
