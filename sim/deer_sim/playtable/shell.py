"""What of the table is drawn: only faces that a camera can see, as TinyRenderer's time grows with the area drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deer_sim.playtable import meshes, urdf
from deer_sim.playtable.scene import Scene

Corner = tuple[float, float, float]
_FACES = ("-x", "+x", "-y", "+y", "-z", "+z")


def polygons(loops: Iterable[Sequence[Corner]]) -> meshes.Mesh:
    """Flat convex polygons, each a loop of corners that is counter-clockwise seen from where it is looked at."""
    vertices: list[Corner] = []
    triangles: list[tuple[int, int, int]] = []
    for loop in loops:
        first = len(vertices)
        vertices.extend(loop)
        triangles.extend((first, first + index, first + index + 1) for index in range(1, len(loop) - 1))
    return np.array(vertices, dtype=np.float64), np.array(triangles, dtype=np.int64)


def box_faces(low: Corner, high: Corner, faces: str) -> list[list[Corner]]:
    """Loops of some faces of a box, for example "+x -y +z"."""
    corners = (low, high)
    loops = []
    for face in faces.split():
        axis, side = divmod(_FACES.index(face), 2)
        around = ((0, 0), (1, 0), (1, 1), (0, 1)) if side else ((0, 0), (0, 1), (1, 1), (1, 0))
        loop = []
        for first, second in around:
            corner = [0.0, 0.0, 0.0]
            corner[axis] = corners[side][axis]
            corner[(axis + 1) % 3] = corners[first][(axis + 1) % 3]
            corner[(axis + 2) % 3] = corners[second][(axis + 2) % 3]
            loop.append((corner[0], corner[1], corner[2]))
        loops.append(loop)
    return loops


def _drawn(folder: Path, name: str, loops: Iterable[Sequence[Corner]], colour: urdf.Colour) -> urdf.Mesh:
    """A mesh file of polygons."""
    return urdf.Mesh(meshes.write_obj(folder / f"{name}_drawn.obj", polygons(loops)), colour)


def base(scene: Scene, folder: Path) -> list[urdf.Solid]:
    """The desk and the cabinet."""
    left, right = scene.cabinet_x
    hollow_left, hollow_right = scene.drawer_x - 0.2, scene.drawer_x + 0.2
    wood = [
        *box_faces((-0.44, -0.18, 0.40), (0.44, 0.02, 0.44), "+x -y +z"),
        *box_faces((left, 0.14, 0.628), (right, 0.18, 0.648), "-y +z"),
    ]
    for low, high in ((-0.44, left), (right, 0.44)):
        wood.append([(low, 0.02, 0.44), (high, 0.02, 0.44), (high, 0.14, 0.648), (low, 0.14, 0.648)])
        wood += box_faces((low, 0.14, 0.40), (high, 0.18, 0.648), "+z")
        profile = [(0.02, 0.40), (0.18, 0.40), (0.18, 0.648), (0.14, 0.648), (0.02, 0.44)]
        wood.append([(high, y, z) for y, z in profile])
        if low == right:
            wood.append([(low, y, z) for y, z in reversed(profile)])
    dark = [
        *box_faces((left, 0.16, 0.42), (right, 0.18, 0.628), "-y"),
        *box_faces((-0.42, -0.16, 0.30), (hollow_left, 0.16, 0.40), "-y"),
        *box_faces((hollow_right, -0.16, 0.30), (0.42, 0.16, 0.40), "+x -y"),
        *box_faces((hollow_left, -0.16, 0.30), (hollow_right, 0.16, 0.32), "-y"),
    ]
    for x in (-0.42, 0.42):
        for y in (-0.164, 0.164):
            dark += box_faces((x - 0.02, y - 0.016, 0.0), (x + 0.02, y + 0.016, 0.30), "+x -y")
    hole = [*box_faces((hollow_left, -0.15, 0.32), (hollow_right, 0.0, 0.40), "-y")]
    return [
        _drawn(folder, "base_wood", wood, scene.wood),
        _drawn(folder, "base_dark", dark, scene.wood_dark),
        _drawn(folder, "base_hole", hole, (0.05, 0.04, 0.03)),
    ]


def drawer(folder: Path, boxes: Sequence[urdf.Box], handle: Sequence[urdf.Box]) -> list[urdf.Solid]:
    """The drawer: front, back and two sides seen from above, the floor, and the handle."""
    front, back, side_left, side_right, floor = boxes
    walls = [
        *box_faces(front.low, front.high, "-x +x +y -z +z"),
        *box_faces(back.low, back.high, "+y +z"),
        *box_faces(side_left.low, side_left.high, "+x +y"),
        *box_faces(side_right.low, side_right.high, "-x +x +y"),
    ]
    drawn = [
        _drawn(folder, "drawer_walls", walls, front.colour),
        _drawn(folder, "drawer_floor", box_faces(floor.low, floor.high, "+y"), floor.colour),
    ]
    bars = [loop for bar in handle for loop in box_faces(bar.low, bar.high, "-x +x +y -z +z")]
    return [*drawn, _drawn(folder, "drawer_handle", bars, handle[0].colour)]


def slider(folder: Path, panel: urdf.Box, grip: Sequence[urdf.Box]) -> list[urdf.Solid]:
    """The sliding door without its back."""
    bars = [loop for bar in grip for loop in box_faces(bar.low, bar.high, "-x +x -y +y +z")]
    return [
        _drawn(folder, "slider_panel", box_faces(panel.low, panel.high, "-x +x +y +z"), panel.colour),
        _drawn(folder, "slider_grip", bars, grip[0].colour),
    ]


def plank(folder: Path, board: urdf.Box) -> list[urdf.Solid]:
    """The cabinet's floor."""
    return [_drawn(folder, "plank", box_faces(board.low, board.high, "+y +z"), board.colour)]
