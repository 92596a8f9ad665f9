"""The checkered floor and the sky behind the play table, drawn by intersecting one ray per pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_sim.engine.scene import Lens

_TILE_M = 1.0
_TILES = ((236, 236, 238), (168, 186, 214))
_SKY = (246, 246, 248)


def load(client: Any) -> int:
    """Loads a floor that is touched but, for the cameras, is a speck far below; returns its body."""
    speck = client.createVisualShape(
        client.GEOM_BOX, halfExtents=[1e-4, 1e-4, 1e-4], visualFramePosition=[0.0, 0.0, -10.0]
    )
    return client.createMultiBody(
        baseMass=0.0,
        baseCollisionShapeIndex=client.createCollisionShape(client.GEOM_PLANE),
        baseVisualShapeIndex=speck,
    )


def picture(lens: Lens, view: Any, projection: Any, wanted: np.ndarray) -> np.ndarray:
    """The checkered floor (z = 0) and the sky at the `wanted` pixels (rows, columns): (count, 3) uint8.

    One ray is intersected per pixel. Drawn by TinyRenderer, the floor would take a third of a static picture's time.
    """
    row, column = np.nonzero(wanted)
    x, y = (column + 0.5) / lens.columns * 2 - 1, 1 - (row + 0.5) / lens.rows * 2
    from_clip = np.linalg.inv(np.reshape(projection, (4, 4)).T @ np.reshape(view, (4, 4)).T)
    sideways = from_clip[:, 0:1] * x + from_clip[:, 1:2] * y + from_clip[:, 3:4]
    near, far = sideways - from_clip[:, 2:3], sideways + from_clip[:, 2:3]
    near, far = near[:3] / near[3], far[:3] / far[3]
    drop = near[2] - far[2]
    downwards = drop > 1e-9
    hit = near[:2] + (near[2] / np.where(downwards, drop, 1.0)) * (far[:2] - near[:2])
    odd = np.floor(hit / _TILE_M).astype(np.int64).sum(axis=0) % 2
    return np.array([*_TILES, _SKY], dtype=np.uint8)[np.where(downwards, odd, 2)]
