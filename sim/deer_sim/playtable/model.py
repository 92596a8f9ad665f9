"""The play table as a scene of the engine: what it loads, and its settings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.interfaces import GRIPPER_SHAPE, STATIC_SHAPE
from deer_sim.engine.scene import ArmSettings, CameraSettings, FixtureSettings, Lens, Rgba, Surface
from deer_sim.playtable import floor, robot, table
from deer_sim.playtable.scene import Scene

_CAMERAS = CameraSettings(
    static=Lens(*STATIC_SHAPE[:2], fov_deg=10.0, near_m=0.01, far_m=10.0),
    eye=(2.871459009488717, -2.166602199425597, 2.555159848480571),
    target=(-0.026242351159453392, -0.0302329882979393, 0.3920000493526459),
    up=(0.4041403970338857, 0.22629790978217404, 0.8862616969685161),
    gripper=Lens(*GRIPPER_SHAPE[:2], fov_deg=75.0, near_m=0.01, far_m=2.0),
)
_FIXTURES = FixtureSettings(
    joints=(table.SLIDER, table.DRAWER, table.BUTTON, table.SWITCH),
    initial=(0.0, 0.0, 0.0, 0.0),
    bulb_link=table.BULB_LINK,
    led_link=table.LED_LINK,
    bulb_colour=(1.0, 1.0, 0.0, 1.0),
    led_colour=(0.0, 1.0, 0.0, 1.0),
)
_COLOURS: dict[str, Rgba] = {
    "red": (1.0, 0.0, 0.0, 1.0),
    "blue": (0.0, 0.0, 1.0, 1.0),
    "pink": (1.0, 0.0, 1.0, 1.0),
}
_BLOCK_MASS_KG = 1.0


class PlayTableModel:
    """One of the scenes A to D; implements `deer_sim.engine.scene.Scene`."""

    arm: ArmSettings = robot.SETTINGS
    fixtures: FixtureSettings = _FIXTURES
    cameras: CameraSettings = _CAMERAS
    physics_rate_hz = 240.0
    sorted_pairs = True
    official_reset = False

    def __init__(self, scene: Scene) -> None:
        """Writes the bodies' files."""
        self.name = f"playtable:{scene.name}"
        self.block_order: tuple[str, ...] = scene.block_order
        self.surfaces: dict[str, Surface] = scene.surfaces
        self._scene = scene
        self._folder = tempfile.TemporaryDirectory(prefix="deer_playtable_")
        folder = Path(self._folder.name)
        self._robot_file, self._table_file = robot.write_urdf(folder), table.write_urdf(scene, folder)

    def load_robot(self, client: Any) -> int:
        """Loads the arm."""
        return client.loadURDF(str(self._robot_file), robot.BASE_POSITION, (0.0, 0.0, 0.0, 1.0), useFixedBase=True)

    def load_blocks(self, client: Any) -> dict[str, int]:
        """Makes the blocks, high above the table."""
        bodies: dict[str, int] = {}
        for colour in self.block_order:
            half = [edge / 2 for edge in self._scene.block_extent(colour)]
            bodies[colour] = client.createMultiBody(
                _BLOCK_MASS_KG,
                client.createCollisionShape(client.GEOM_BOX, halfExtents=half),
                client.createVisualShape(client.GEOM_BOX, halfExtents=half, rgbaColor=_COLOURS[colour]),
                (0.0, 0.0, 1.0 + 0.2 * len(bodies)),
            )
            client.changeDynamics(bodies[colour], -1, lateralFriction=0.7, spinningFriction=0.001)
        return bodies

    def load_table(self, client: Any) -> int:
        """Loads the table."""
        return client.loadURDF(str(self._table_file), useFixedBase=True)

    def load_floor(self, client: Any) -> int:
        """Loads the floor."""
        return floor.load(client)

    def backdrop(self, lens: Lens, view: Any, projection: Any, wanted: np.ndarray) -> np.ndarray:
        """The floor and the sky."""
        return floor.picture(lens, view, projection, wanted)

    def close(self) -> None:
        """Removes the bodies' files."""
        self._folder.cleanup()
