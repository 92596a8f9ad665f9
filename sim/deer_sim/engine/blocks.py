"""The three blocks: where they are put at a reset, and how they move."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deer_policies.errors import SimulatorError
from deer_sim.engine.scene import Surface

_MAX_TRIES = 1000


class Blocks:
    """The blocks of one scene in one physics client."""

    def __init__(self, client: Any, bodies: dict[str, int]) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient`, `bodies` by colour in the order of scene_obs."""
        self._client = client
        self.bodies = bodies

    def place(self, poses: np.ndarray) -> None:
        """Puts the blocks, at rest, at poses (3, 6): xyz (m) and euler xyz (rad), in the scene's order."""
        for body, pose in zip(self.bodies.values(), poses, strict=True):
            orientation = self._client.getQuaternionFromEuler(pose[3:].tolist())
            self._client.resetBasePositionAndOrientation(body, pose[:3].tolist(), orientation)
            self._client.resetBaseVelocity(body, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))

    def scatter(self, surfaces: dict[str, Surface], rng: np.random.Generator) -> None:
        """Draws places on the surfaces until no two blocks touch; raises SimulatorError if there is no room."""
        choice = list(surfaces.values())
        for _ in range(_MAX_TRIES):
            poses = np.zeros((3, 6))
            for pose in poses:
                surface = choice[rng.integers(len(choice))]
                pose[:3] = rng.uniform(*surface.x), rng.uniform(*surface.y), surface.z_m
                pose[5] = rng.uniform(-math.pi, math.pi)
            self.place(poses)
            self._client.stepSimulation()
            if not self._touch_each_other():
                return
        raise SimulatorError(f"no free place for the blocks on the scene's surfaces in {_MAX_TRIES} tries")

    def motion(self, colour: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Position (3,) m, orientation (4,) xyzw, linear (3,) m/s and angular (3,) rad/s velocity of a block."""
        body = self.bodies[colour]
        position, orientation = self._client.getBasePositionAndOrientation(body)
        linear, angular = self._client.getBaseVelocity(body)
        return np.array(position), np.array(orientation), np.array(linear), np.array(angular)

    def _touch_each_other(self) -> bool:
        """Whether any two blocks are in contact."""
        bodies = list(self.bodies.values())
        pairs = [(first, second) for index, first in enumerate(bodies) for second in bodies[index + 1 :]]
        return any(self._client.getContactPoints(bodyA=first, bodyB=second) for first, second in pairs)
