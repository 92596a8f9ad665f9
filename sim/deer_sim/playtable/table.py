"""The table as an articulated body: a hollow desk and cabinet, door, drawer, button, switch, plank and two lights.

Every part is a box, a sphere or a convex prism, placed by the collision extents of CALVIN's table at its scale of 0.8.
Coordinates of a link are those of its joint's frame, which is turned about x by the joint's roll.
"""

from __future__ import annotations

import math
from pathlib import Path

from deer_sim.playtable import meshes, shell, urdf
from deer_sim.playtable.scene import BUTTON_RANGE_M, DRAWER_RANGE_M, SWITCH_RANGE_M, Scene

SLIDER, DRAWER, BUTTON, SWITCH = "base__slide", "base__drawer", "base__button", "base__switch"
"""Names of the moving joints."""
BULB_LINK, LED_LINK = "light_link", "led_link"

_METAL = (0.62, 0.64, 0.66)
_BLACK = (0.08, 0.08, 0.09)
_UPRIGHT_RAD = math.pi / 2


def _octagon(low: tuple[float, float], high: tuple[float, float], cut: float) -> list[tuple[float, float]]:
    """A rectangle with its corners cut off, counter-clockwise."""
    (a0, b0), (a1, b1) = low, high
    return [
        (a0 + cut, b0),
        (a1 - cut, b0),
        (a1, b0 + cut),
        (a1, b1 - cut),
        (a1 - cut, b1),
        (a0 + cut, b1),
        (a0, b1 - cut),
        (a0, b0 + cut),
    ]


def _circle(radius: float, corners: int) -> list[tuple[float, float]]:
    """A regular polygon around the origin, counter-clockwise."""
    angles = [2 * math.pi * (index + 0.5) / corners for index in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _ring(x: float, y: float) -> list[meshes.Mesh]:
    """The ring on the table that the button sinks into, in twelve convex parts."""
    inner, outer = ([(x + a, y + b) for a, b in _circle(radius, 12)] for radius in (0.03, 0.04))
    parts = []
    for here in range(12):
        after = (here + 1) % 12
        parts.append(meshes.prism([inner[here], outer[here], outer[after], inner[after]], (0.44, 0.46), axis=2))
    return parts


def _base(scene: Scene, folder: Path) -> list[urdf.Solid]:
    """The desk: legs, body with the drawer's hollow, top, and the cabinet with its sloping front left and right."""
    left, right = scene.cabinet_x
    hollow_left, hollow_right = scene.drawer_x - 0.2, scene.drawer_x + 0.2
    solids: list[urdf.Solid] = [
        urdf.Box((side * 0.42 - 0.02, end * 0.164 - 0.016, 0.0), (side * 0.42 + 0.02, end * 0.164 + 0.016, 0.30))
        for side in (-1, 1)
        for end in (-1, 1)
    ]
    solids += [
        urdf.Box((-0.42, -0.16, 0.30), (0.42, 0.16, 0.32)),
        urdf.Box((-0.42, -0.16, 0.32), (hollow_left, 0.16, 0.40)),
        urdf.Box((hollow_right, -0.16, 0.32), (0.42, 0.16, 0.40)),
        urdf.Box((hollow_left, 0.06, 0.32), (hollow_right, 0.16, 0.40)),
        urdf.Box((-0.44, -0.18, 0.40), (0.44, 0.02, 0.44)),
        urdf.Box((left, 0.02, 0.40), (right, 0.16, 0.42)),
        urdf.Box((left, 0.16, 0.40), (right, 0.18, 0.628)),
        urdf.Box((left, 0.14, 0.628), (right, 0.18, 0.648)),
    ]
    slope = [(0.02, 0.40), (0.18, 0.40), (0.18, 0.648), (0.14, 0.648), (0.02, 0.44)]
    for name, extent in (("slope_left", (-0.44, left)), ("slope_right", (right, 0.44))):
        solids.append(urdf.Mesh(meshes.write_obj(folder / f"{name}.obj", meshes.prism(slope, extent))))
    return solids


def _slider(scene: Scene) -> tuple[urdf.Box, list[urdf.Box]]:
    """The sliding door: a panel, and a C-shaped grip whose bar runs parallel to it, 3.5 cm off."""
    panel = urdf.Box((-0.0006, -0.1206, -0.0006), (0.2806, 0.1203, 0.0219), scene.wood_dark)
    grip = [
        urdf.Box((0.1192, -0.0803, 0.0219), (0.1608, -0.0577, 0.0801), _METAL),
        urdf.Box((0.1192, 0.0574, 0.0219), (0.1608, 0.0811, 0.0801), _METAL),
        urdf.Box((0.1192, -0.0577, 0.0575), (0.1608, 0.0574, 0.0801), _METAL),
    ]
    return panel, grip


def _drawer(scene: Scene) -> tuple[list[urdf.Box], list[urdf.Box]]:
    """The drawer: front, back, left and right side, floor; and a bar handle on two arms."""
    dark = scene.wood_dark
    walls = [
        urdf.Box((-0.2209, -0.0209, 0.1574), (0.2209, 0.0812, 0.1820), dark),
        urdf.Box((-0.2015, -0.0015, -0.0609), (0.2015, 0.0812, -0.0380), dark),
        urdf.Box((-0.2015, -0.0015, -0.0380), (-0.1769, 0.0812, 0.1574), dark),
        urdf.Box((0.1769, -0.0015, -0.0380), (0.2015, 0.0812, 0.1574), dark),
        urdf.Box((-0.1769, -0.0015, -0.0380), (0.1769, 0.0214, 0.1574), scene.wood),
    ]
    handle = [
        urdf.Box((-0.1206, 0.0196, 0.1820), (-0.0959, 0.0618, 0.2383), _METAL),
        urdf.Box((0.0959, 0.0196, 0.1820), (0.1206, 0.0618, 0.2383), _METAL),
        urdf.Box((-0.1206, 0.0196, 0.2383), (0.1206, 0.0601, 0.2612), _METAL),
    ]
    return walls, handle


def _switch(folder: Path) -> list[urdf.Solid]:
    """The switch: a rounded bar on two legs."""
    bar = meshes.prism(_octagon((0.0425, -0.0242), (0.0643, 0.0080), 0.004), (-0.0603, 0.0603))
    solids: list[urdf.Solid] = [urdf.Mesh(meshes.write_obj(folder / "switch_bar.obj", bar), _METAL)]
    for low, high in ((-0.0603, -0.0396), (0.0396, 0.0603)):
        solids.append(urdf.Box((low, 0.0, -0.0220), (high, 0.0425, 0.0060), _METAL))
    return solids


def write_urdf(scene: Scene, folder: Path) -> Path:
    """Writes the table's URDF and the meshes that it names into `folder`, and returns the URDF's path."""
    button = meshes.prism(_circle(0.0325, 12), (0.0, 0.024), axis=1)
    panel, grip = _slider(scene)
    walls, handle = _drawer(scene)
    board = urdf.Box((-0.26, 0.0, -0.07), (0.26, 0.021, 0.07), scene.wood)
    ring = urdf.Mesh(meshes.write_obj(folder / "button_ring.obj", *_ring(scene.button_x, -0.12)), scene.wood_dark)
    base = [*_base(scene, folder), ring]
    links = [
        urdf.Link("base_link", base, 0.0, drawn=[*shell.base(scene, folder), ring]),
        urdf.Link("button_link", [urdf.Mesh(meshes.write_obj(folder / "button.obj", button), _BLACK)], 0.153812),
        urdf.Link("switch_link", _switch(folder), 0.238787),
        urdf.Link("slide_link", [panel, *grip], 1.543491, drawn=shell.slider(folder, panel, grip)),
        urdf.Link("drawer_link", [*walls, *handle], 4.231281, drawn=shell.drawer(folder, walls, handle)),
        urdf.Link(LED_LINK, [urdf.Box((-0.08, 0.0, -0.02), (0.08, 0.016, 0.02))], 0.204),
        urdf.Link(BULB_LINK, [urdf.Sphere((0.0, 0.0265, 0.0), 0.028)], 0.173918),
        urdf.Link("plank_link", [board], 2.84375, drawn=shell.plank(folder, board)),
    ]
    middle = sum(scene.cabinet_x) / 2

    def joint(name: str, child: str, origin: urdf.Vector, roll_rad: float = _UPRIGHT_RAD) -> urdf.Joint:
        return urdf.Joint(name, "base_link", child, origin, roll_rad)

    def moving(
        name: str, child: str, origin: urdf.Vector, roll_rad: float, axis: urdf.Vector, upper: float
    ) -> urdf.Joint:
        return urdf.Joint(name, "base_link", child, origin, roll_rad, axis, (0.0, upper))

    button_at, drawer_at = (scene.button_x, -0.12, 0.46), (scene.drawer_x, 0.0, 0.32)
    switch_at, slider_at = (scene.switch_x, 0.0609282, 0.4948897), (scene.slider_x, 0.075, 0.535264)
    joints = [
        moving(BUTTON, "button_link", button_at, _UPRIGHT_RAD, (0.0, -1.0, 0.0), BUTTON_RANGE_M),
        moving(SWITCH, "switch_link", switch_at, math.radians(150), (0.0, 0.0, -1.0), SWITCH_RANGE_M),
        moving(SLIDER, "slide_link", slider_at, math.radians(60), (-1.0, 0.0, 0.0), scene.slider_range),
        moving(DRAWER, "drawer_link", drawer_at, _UPRIGHT_RAD, (0.0, 0.0, 1.0), DRAWER_RANGE_M),
        joint("base__led", LED_LINK, (scene.led_x, 0.16, 0.647846)),
        joint("base__light", BULB_LINK, (scene.switch_x, 0.16, 0.647846)),
        joint("base__plank", "plank_link", (middle, 0.09, 0.42)),
    ]
    path = folder / "table.urdf"
    path.write_text(urdf.robot_text("playtable", links, joints))
    return path
