"""Small triangle meshes that are computed, never shipped: written as OBJ files where a URDF can name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices (n, 3) in m and triangles (m, 3) of vertex indices, counter-clockwise seen from outside."""


def prism(profile: Sequence[tuple[float, float]], extent: tuple[float, float], axis: int = 0) -> Mesh:
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


def read_vertices(path: Path) -> np.ndarray:
    """Vertices (n, 3) of an OBJ file."""
    lines = path.read_text().splitlines()
    return np.array([[float(value) for value in line.split()[1:4]] for line in lines if line.startswith("v ")])


def hull(points: np.ndarray) -> Mesh:
    """The convex hull of points (n, 3)."""
    from scipy.spatial import ConvexHull

    found = ConvexHull(points)
    used = np.unique(found.simplices)
    triangles = np.searchsorted(used, found.simplices)
    vertices = points[used]
    corner = vertices[triangles]
    outward = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    flipped = np.einsum("ij,ij->i", outward, found.equations[:, :3]) < 0
    triangles[flipped] = triangles[flipped][:, ::-1]
    return vertices, triangles


def outermost(points: np.ndarray, directions: int) -> np.ndarray:
    """Those of points (n, 3) that lie furthest out in any of some directions.

    The directions are spread over the sphere by the golden angle, so that the result is the same on every machine.
    """
    steps = np.arange(directions) + 0.5
    polar, azimuth = np.arccos(1 - 2 * steps / directions), np.pi * (1 + 5**0.5) * steps
    spread = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)])
    return points[np.unique(np.argmax(points @ spread, axis=0))]


def write_obj(path: Path, *parts: Mesh) -> Path:
    """Writes flat-shaded triangles (each with its own normal) and returns the path.

    Bullet takes each part as a convex body of its own, so that several parts together can be hollow.
    """
    lines: list[str] = []
    first_vertex, first_normal = 1, 1
    for number, (vertices, triangles) in enumerate(parts):
        corners = vertices[triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        lines.append(f"o part_{number}")
        lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in vertices]
        lines += [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in normals]
        for index, triangle in enumerate(triangles):
            lines.append("f " + " ".join(f"{first_vertex + v}//{first_normal + index}" for v in triangle))
        first_vertex += len(vertices)
        first_normal += len(triangles)
    path.write_text("\n".join(lines) + "\n")
    return path
