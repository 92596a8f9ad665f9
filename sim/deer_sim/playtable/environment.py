"""PlayTable: our own table in the environment that runs every scene."""

from __future__ import annotations

from deer_sim.engine.environment import TableEnvironment
from deer_sim.playtable.model import PlayTableModel
from deer_sim.playtable.scene import find_scene


class PlayTable(TableEnvironment):
    """A Panda arm at a play table of our own making; needs no data. Several may live in one process."""

    def __init__(self, scene: str = "D", cameras: bool = True) -> None:
        """Builds the physics world.

        Raises:
            SimulatorError: if there is no such scene, or pybullet is not installed.
        """
        self.scene = find_scene(scene)
        super().__init__(PlayTableModel(self.scene), cameras)
