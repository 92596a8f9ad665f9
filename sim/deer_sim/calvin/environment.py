"""CalvinTable: CALVIN's official scenes in the environment that runs every scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deer_sim.calvin.data import find_data
from deer_sim.calvin.model import CalvinModel
from deer_sim.engine.cameras import TINY
from deer_sim.engine.environment import TableEnvironment
from deer_sim.environment import EnvironmentSpec


class CalvinTable(TableEnvironment):
    """A Panda arm in an official scene, as CALVIN's own environment runs it. Several may live in one process."""

    def __init__(
        self,
        scene: str = "D",
        data: Path | None = None,
        cameras: bool = True,
        exact: bool = False,
        renderer: str = TINY,
        light_arm: bool = False,
    ) -> None:
        """Builds the physics world.

        Args:
            scene: 'A' to 'D'.
            data: folder with CALVIN's `conf` and `data`; None: where the package `calvin_env` lies.
            cameras: whether time steps carry pictures.
            exact: for replays of recordings, see `deer_sim.engine.environment.TableEnvironment`.
            renderer: TINY or EGL of `deer_sim.engine.cameras`.
            light_arm: draws the arm from the meshes that it touches with, a fiftieth of the triangles; faster, but it
                looks coarser than in official pictures.

        Raises:
            SimulatorError: if the data or the scene is not there, or pybullet is not installed.
        """
        self._light_arm = light_arm
        super().__init__(CalvinModel(scene, find_data(data), light_arm), cameras, exact, renderer)

    @property
    def spec(self) -> EnvironmentSpec:
        """Fixed facts; other pictures are another renderer."""
        spec = super().spec
        drawn_lightly = self._light_arm and spec.renderer != "none"
        return replace(spec, renderer=f"{spec.renderer}, light arm") if drawn_lightly else spec
