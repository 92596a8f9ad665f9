"""The four scenes A to D: where the fixtures stand, which block has which size, and where blocks may lie at a reset.

Lengths are in m, in the world frame (z up, the table's front edge at negative y). The figures are those of CALVIN's
scenes (Mees et al. 2022, https://github.com/mees/calvin), so that motions and trajectories carry over.
"""

from __future__ import annotations

from dataclasses import dataclass

from deer_policies.errors import SimulatorError
from deer_sim.engine.scene import Surface
from deer_sim.environment import BLOCKS

BLOCK_SIZES_M = {"small": (0.04, 0.04, 0.04), "middle": (0.056, 0.04, 0.04), "big": (0.08, 0.04, 0.04)}
"""Edge lengths of the three block sizes."""
DRAWER_RANGE_M = 0.22
BUTTON_RANGE_M = 0.02
SWITCH_RANGE_M = 0.088
SURFACE_Z_M = 0.46
"""Height of a block's centre when it lies on the table or on the plank."""


@dataclass(frozen=True)
class Scene:
    """One table: fixture places, block sizes and colours.

    Attributes:
        name: "A" to "D".
        slider_x: x of the door's frame at joint 0; the door reaches from there 0.28 m to the right.
        slider_range: how far the door moves to the left.
        drawer_x, button_x, switch_x, led_x: centres of the fixtures; the bulb stands above the switch.
        cabinet_x: left and right wall of the cabinet behind the door.
        block_order: colours in the order of scene_obs.
        block_size: name of each colour's size.
        surfaces: where random resets put blocks, by name; the choice between them is uniform.
        wood, wood_dark: colours (red, green, blue) in 0..1 of the table and of its doors.
    """

    name: str
    slider_x: float
    slider_range: float
    drawer_x: float
    button_x: float
    switch_x: float
    led_x: float
    cabinet_x: tuple[float, float]
    block_order: tuple[str, ...]
    block_size: dict[str, str]
    surfaces: dict[str, Surface]
    wood: tuple[float, float, float]
    wood_dark: tuple[float, float, float]

    def __post_init__(self) -> None:
        if sorted(self.block_order) != sorted(BLOCKS) or sorted(self.block_size) != sorted(BLOCKS):
            raise SimulatorError(f"scene {self.name} must name each of the blocks {BLOCKS} once")
        unknown = set(self.block_size.values()) - set(BLOCK_SIZES_M)
        if unknown:
            raise SimulatorError(f"scene {self.name} has block sizes {sorted(unknown)}; allowed: {list(BLOCK_SIZES_M)}")

    def block_extent(self, colour: str) -> tuple[float, float, float]:
        """Edge lengths of a block in m."""
        return BLOCK_SIZES_M[self.block_size[colour]]


def _surfaces(table: tuple[float, float], left: tuple[float, float], right: tuple[float, float]) -> dict[str, Surface]:
    """The three surfaces from their x bounds; depths are the same in every scene."""
    return {
        "table": Surface(table, (-0.15, -0.03), SURFACE_Z_M),
        "slider_left": Surface(left, (0.05, 0.12), SURFACE_Z_M),
        "slider_right": Surface(right, (0.05, 0.12), SURFACE_Z_M),
    }


SCENES: dict[str, Scene] = {
    "A": Scene(
        name="A",
        slider_x=-0.10,
        slider_range=0.28,
        drawer_x=0.10,
        button_x=-0.28,
        switch_x=0.30,
        led_x=-0.28,
        cabinet_x=(-0.36, 0.16),
        block_order=("pink", "blue", "red"),
        block_size={"red": "middle", "blue": "big", "pink": "small"},
        surfaces=_surfaces((-0.20, 0.35), (-0.32, -0.16), (-0.05, 0.13)),
        wood=(0.42, 0.27, 0.16),
        wood_dark=(0.36, 0.22, 0.13),
    ),
    "B": Scene(
        name="B",
        slider_x=0.088,
        slider_range=0.304,
        drawer_x=0.18,
        button_x=0.28,
        switch_x=-0.32,
        led_x=0.28,
        cabinet_x=(-0.18, 0.34),
        block_order=("red", "blue", "pink"),
        block_size={"red": "small", "blue": "big", "pink": "middle"},
        surfaces=_surfaces((-0.35, 0.15), (-0.12, 0.06), (0.15, 0.33)),
        wood=(0.85, 0.72, 0.53),
        wood_dark=(0.77, 0.63, 0.45),
    ),
    "C": Scene(
        name="C",
        slider_x=0.06,
        slider_range=0.24,
        drawer_x=0.10,
        button_x=-0.12,
        switch_x=-0.32,
        led_x=-0.12,
        cabinet_x=(-0.18, 0.34),
        block_order=("blue", "red", "pink"),
        block_size={"red": "big", "blue": "small", "pink": "middle"},
        surfaces=_surfaces((0.0, 0.35), (-0.12, 0.06), (0.15, 0.30)),
        wood=(0.66, 0.48, 0.30),
        wood_dark=(0.58, 0.41, 0.25),
    ),
    "D": Scene(
        name="D",
        slider_x=-0.10,
        slider_range=0.28,
        drawer_x=0.18,
        button_x=-0.12,
        switch_x=0.30,
        led_x=-0.12,
        cabinet_x=(-0.36, 0.16),
        block_order=("red", "blue", "pink"),
        block_size={"red": "middle", "blue": "small", "pink": "big"},
        surfaces=_surfaces((0.0, 0.35), (-0.32, -0.16), (-0.05, 0.13)),
        wood=(0.45, 0.30, 0.19),
        wood_dark=(0.38, 0.25, 0.15),
    ),
}


def find_scene(name: str) -> Scene:
    """The scene of that letter.

    Raises:
        SimulatorError: if there is none.
    """
    if name not in SCENES:
        raise SimulatorError(f"unknown scene {name!r}; allowed: {', '.join(SCENES)}")
    return SCENES[name]
