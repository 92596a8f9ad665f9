"""Small triangle meshes that are computed, never shipped: written as OBJ files where a URDF can name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def prism(
    profile: Sequence[tuple[float, float]], extent: tuple[float, float], axis: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A convex profile drawn out along one axis.

    Args:
        profile: corners in the plane of the two axes that follow `axis` in cyclic order (y, z for 0; z, x for 1;
            x, y for 2), counter-clockwise when seen from the far end of `axis`.
        extent: where it begins and ends on `axis`.
        axis: 0, 1 or 2 for x, y or z.

    Returns:
        vertices (2 n, 3) and triangles (m, 3), facing outwards.
    """
    count = len(profile)
    corners = [(extent[side], *corner) for side in (0, 1) for corner in profile]
    triangles: list[tuple[int, int, int]] = []
    for index in range(1, count - 1):
        triangles.append((0, index + 1, index))
        triangles.append((count, count + index, count + index + 1))
    for index in range(count):
        after = (index + 1) % count
        triangles.append((index, after, count + after))
        triangles.append((index, count + after, count + index))
    return np.roll(np.array(corners, dtype=np.float64), axis, axis=1), np.array(triangles, dtype=np.int64)


def write_obj(path: Path, vertices: np.ndarray, triangles: np.ndarray) -> Path:
    """Writes flat-shaded triangles (each with its own normal) and returns the path."""
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in vertices]
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    lines += [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in normals]
    lines += [
        "f " + " ".join(f"{corner + 1}//{index + 1}" for corner in triangle) for index, triangle in enumerate(triangles)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
