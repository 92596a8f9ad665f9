"""PlayTable: the embedded environment; physics at 240 Hz, control at 30 Hz, CALVIN's observations and actions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError, SimulatorError
from deer_policies.interfaces import ACTION_SIZE, CONTROL_RATE_HZ, PROPRIOCEPTION_SIZE
from deer_sim.environment import BlockState, Contact, EnvironmentSpec, SceneState, TimeStep
from deer_sim.playtable import renderer, robot, table
from deer_sim.playtable.blocks import Blocks
from deer_sim.playtable.client import connect
from deer_sim.playtable.fixtures import Fixtures
from deer_sim.playtable.scene import find_scene

PHYSICS_RATE_HZ = 240.0
_SUBSTEPS = round(PHYSICS_RATE_HZ / CONTROL_RATE_HZ)
SCENE_OBS_SIZE = 24
_GRAVITY = -9.8


def _checked(name: str, values: Any, size: int) -> np.ndarray:
    """Returns `values` as a finite float64 vector (size,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (size,):
        raise ConfigError(f"{name} has shape {array.shape}; it must be ({size},)")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds values that are not finite: {array.tolist()}; nothing is done with it")
    return array


class PlayTable:
    """A Panda arm at a play table; implements `deer_sim.environment.Environment`. Several may live in one process."""

    def __init__(self, scene: str = "D", cameras: bool = True) -> None:
        """Builds the physics world.

        Raises:
            SimulatorError: if there is no such scene, or pybullet is not installed.
        """
        self.scene = find_scene(scene)
        self._folder = tempfile.TemporaryDirectory(prefix="deer_playtable_")
        folder = Path(self._folder.name)
        self._robot_file, self._table_file = robot.write_urdf(folder), table.write_urdf(self.scene, folder)
        self._client = connect()
        self._client_open = True
        self._build()
        self._cameras = renderer.Cameras(self._client, self._robot.body) if cameras else None
        self._steps = 0
        self._started = False

    def _build(self) -> None:
        """Fills the physics world afresh.

        Bullet's solver keeps contacts, impulses and the order of pairs from what ran before, and its saved states leave
        some of that out; so every reset builds the world anew (about 10 ms), and episodes are repeatable to the bit.
        """
        client = self._client
        client.resetSimulation()
        client.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        client.setTimeStep(1.0 / PHYSICS_RATE_HZ)
        client.setGravity(0.0, 0.0, _GRAVITY)
        self._robot = robot.Robot(client, self._robot_file)
        self._blocks = Blocks(client, self.scene)
        self._fixtures = Fixtures(client, client.loadURDF(str(self._table_file), useFixedBase=True), self.scene)
        plane = client.createMultiBody(
            baseMass=0.0,
            baseCollisionShapeIndex=client.createCollisionShape(client.GEOM_PLANE),
            baseVisualShapeIndex=renderer.hidden_shape(client),
        )
        self._names = {self._robot.body: "robot", self._fixtures.body: "table", plane: "plane"}
        self._names.update({body: colour for colour, body in self._blocks.bodies.items()})

    @property
    def spec(self) -> EnvironmentSpec:
        """Fixed facts."""
        name = renderer.NAME if self._cameras else "none"
        return EnvironmentSpec(f"playtable:{self.scene.name}", name, CONTROL_RATE_HZ, self.scene.block_order)

    def reset(
        self,
        seed: int | None = None,
        robot_obs: np.ndarray | None = None,
        scene_obs: np.ndarray | None = None,
    ) -> TimeStep:
        """Starts an episode.

        Args:
            seed: draws the blocks' places when `scene_obs` is not given; None draws a fresh one.
            robot_obs: (15,); joints, finger width and gripper action are taken from it. None: the initial pose, open.
            scene_obs: (24,); fixtures are limited to their travel. None: fixtures at 0, lights off, blocks at random.

        Raises:
            ConfigError: if a state has the wrong shape or values that are not finite.
        """
        robot_state = None if robot_obs is None else _checked("robot_obs", robot_obs, PROPRIOCEPTION_SIZE)
        scene_state = None if scene_obs is None else _checked("scene_obs", scene_obs, SCENE_OBS_SIZE)
        self._build()
        if scene_state is None:
            self._fixtures.reset(np.zeros(4), lightbulb=False, led=False)
            self._blocks.scatter(np.random.default_rng(seed))
        else:
            self._fixtures.reset(scene_state[:4], lightbulb=scene_state[4] > 0.5, led=scene_state[5] > 0.5)
            self._blocks.place(scene_state[6:].reshape(3, 6))
        if robot_state is None:
            self._robot.reset(np.array(robot.INITIAL_JOINTS), 2 * robot.FINGER_MAX_M, 1.0)
        else:
            self._robot.reset(robot_state[7:14], robot_state[6], 1.0 if robot_state[14] > 0.0 else -1.0)
        self._client.stepSimulation()
        self._steps = 0
        self._started = True
        return self._time_step()

    def step(self, action: np.ndarray) -> TimeStep:
        """Runs one control step with a relative action (7,), clipped to [-1, 1]; a positive gripper value opens.

        Raises:
            ConfigError: if the action is not finite or misshapen; nothing moves.
            SimulatorError: before the first reset.
        """
        if not self._started:
            raise SimulatorError("step was called before reset; call reset first")
        self._robot.command(_checked("action", action, ACTION_SIZE))
        for _ in range(_SUBSTEPS):
            self._client.stepSimulation()
        self._fixtures.update()
        self._steps += 1
        return self._time_step()

    def close(self) -> None:
        """Frees the simulator; a second call does nothing."""
        if self._client_open:
            self._client_open = False
            self._client.disconnect()
            self._folder.cleanup()

    def __enter__(self) -> PlayTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _contacts(self, body: int) -> frozenset[Contact]:
        """What `body` touches, as (body, link) names."""
        found = set()
        for contact in self._client.getContactPoints(bodyA=body) or ():
            other, link = contact[2], contact[4]
            name = self._names[other]
            if name == "table":
                found.add((name, self._fixtures.link_names[link]))
            elif name == "robot":
                found.add((name, self._robot.link_names[link]))
            else:
                found.add((name, ""))
        return frozenset(found)

    def _state(self) -> SceneState:
        """Ground truth for the task conditions."""
        slider, drawer, button, switch = self._fixtures.positions().tolist()
        blocks: dict[str, BlockState] = {}
        for colour, body in self._blocks.bodies.items():
            position, orientation, linear, angular = self._blocks.motion(colour)
            blocks[colour] = BlockState(position, orientation, linear, angular, self._contacts(body))
        return SceneState(
            slider=slider,
            drawer=drawer,
            button=button,
            switch=switch,
            lightbulb=self._fixtures.lightbulb,
            led=self._fixtures.led,
            blocks=blocks,
            robot_contacts=self._contacts(self._robot.body),
        )

    def _time_step(self) -> TimeStep:
        """Observes everything."""
        state = self._state()
        fixtures = [state.slider, state.drawer, state.button, state.switch, float(state.lightbulb), float(state.led)]
        blocks = [
            value
            for colour in self.scene.block_order
            for value in (
                *state.blocks[colour].position,
                *self._client.getEulerFromQuaternion(state.blocks[colour].orientation),
            )
        ]
        return TimeStep(
            rgb_static=self._cameras.static() if self._cameras else None,
            rgb_gripper=self._cameras.gripper() if self._cameras else None,
            robot_obs=self._robot.observation(),
            scene_obs=np.array(fixtures + blocks),
            state=state,
            step=self._steps,
            time_s=self._steps / CONTROL_RATE_HZ,
        )
