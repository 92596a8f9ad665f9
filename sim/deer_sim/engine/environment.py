"""The environment that runs every scene: control at 30 Hz, CALVIN's observations and actions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from deer_policies.errors import ConfigError, SimulatorError
from deer_policies.interfaces import ACTION_SIZE, CONTROL_RATE_HZ, PROPRIOCEPTION_SIZE
from deer_sim.engine.blocks import Blocks
from deer_sim.engine.cameras import EGL, TINY, Cameras, Lenses
from deer_sim.engine.client import connect
from deer_sim.engine.fixtures import Fixtures
from deer_sim.engine.robot import Robot
from deer_sim.engine.scene import Scene
from deer_sim.environment import BlockState, Contact, EnvironmentSpec, SceneState, TimeStep

SCENE_OBS_SIZE = 24
_GRAVITY = -9.8


def checked(name: str, values: Any, size: int) -> np.ndarray:
    """Returns `values` as a finite float64 vector (size,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (size,):
        raise ConfigError(f"{name} has shape {array.shape}; it must be ({size},)")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds values that are not finite: {array.tolist()}; nothing is done with it")
    return array


class TableEnvironment:
    """A Panda arm at a table with blocks; implements `deer_sim.environment.Environment`.

    Several may live in one process.
    """

    def __init__(self, model: Scene, cameras: bool = True, exact: bool = False, renderer: str = TINY) -> None:
        """Builds the physics world.

        Args:
            model: the scene; it is closed with the environment.
            cameras: whether time steps carry pictures.
            exact: for replays of recordings: actions beyond [-1, 1] are taken as they are, and each picture is drawn
                in one go, which takes twice as long and settles one or two pixels at edges otherwise.
            renderer: TINY or EGL of `deer_sim.engine.cameras`.

        Raises:
            SimulatorError: if pybullet is not installed or can't load the scene.
        """
        self._model = model
        self._exact = exact
        self._substeps = int(model.physics_rate_hz // CONTROL_RATE_HZ)
        sizes = (model.cameras.static, model.cameras.gripper)
        egl_size = (max(lens.columns for lens in sizes), max(lens.rows for lens in sizes))
        self._client = connect(egl_size if renderer == EGL else None)
        self._open = True
        try:
            self._build()
        except SimulatorError:
            self.close()
            raise
        blocks = set(self._blocks.bodies.values())
        self._cameras = Cameras(self._client, model, self._robot, self._fixtures, blocks, renderer, exact)
        self._renderer = renderer
        self._draws = cameras
        self._steps = 0
        self._now: TimeStep | None = None

    def _build(self) -> None:
        """Fills the physics world afresh.

        Bullet's solver keeps contacts, impulses and the order of pairs from what ran before, and its saved states leave
        some of that out; so every reset builds the world anew (about 10 ms), and episodes are repeatable to the bit.
        """
        client, model = self._client, self._model
        client.resetSimulation()
        if model.sorted_pairs:
            client.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        client.setTimeStep(1.0 / model.physics_rate_hz)
        client.setGravity(0.0, 0.0, _GRAVITY)
        self._robot = Robot(client, model.load_robot(client), model.arm)
        self._blocks = Blocks(client, model.load_blocks(client))
        self._fixtures = Fixtures(client, model.load_table(client), model.fixtures)
        floor = model.load_floor(client)
        self._names = {self._robot.body: "robot", self._fixtures.body: "table", floor: "plane"}
        self._names.update({body: colour for colour, body in self._blocks.bodies.items()})

    @property
    def spec(self) -> EnvironmentSpec:
        """Fixed facts."""
        renderer = self._renderer if self._draws else "none"
        return EnvironmentSpec(self._model.name, renderer, CONTROL_RATE_HZ, self._model.block_order)

    def reset(
        self,
        seed: int | None = None,
        robot_obs: np.ndarray | None = None,
        scene_obs: np.ndarray | None = None,
    ) -> TimeStep:
        """Starts an episode.

        Args:
            seed: draws the blocks' places when `scene_obs` is not given; None draws a fresh one.
            robot_obs: (15,); joints and finger width are taken from it. None: the initial pose, open.
            scene_obs: (24,). None: fixtures as the scene has them at first, lights off, blocks at random.

        How a state is taken over differs a little, see `deer_sim.engine.scene.Scene.official_reset`.

        Raises:
            ConfigError: if a state has the wrong shape or values that are not finite.
        """
        robot_state = None if robot_obs is None else checked("robot_obs", robot_obs, PROPRIOCEPTION_SIZE)
        scene_state = None if scene_obs is None else checked("scene_obs", scene_obs, SCENE_OBS_SIZE)
        self._build()
        self._cameras.rebuilt(self._fixtures)
        model = self._model
        if scene_state is None:
            initial = np.array(model.fixtures.initial)
            self._fixtures.reset(initial, lightbulb=False, led=False, official=model.official_reset)
            self._blocks.scatter(model.surfaces, np.random.default_rng(seed))
        else:
            bulb, led = bool(scene_state[4] > 0.5), bool(scene_state[5] > 0.5)
            self._fixtures.reset(scene_state[:4], bulb, led, model.official_reset)
            self._blocks.place(scene_state[6:].reshape(3, 6))
        if robot_state is None:
            self._robot.reset(np.array(model.arm.initial_joints), 2 * model.arm.finger_travel_m, 1.0)
        else:
            gripper = 1.0 if model.official_reset or robot_state[14] > 0.0 else -1.0
            self._robot.reset(robot_state[7:14], robot_state[6], gripper)
        self._client.stepSimulation()
        self._steps = 0
        self._now = self._time_step()
        return self.look()

    def step(self, action: np.ndarray, look: bool = True) -> TimeStep:
        """Runs one control step with a relative action (7,), clipped to [-1, 1]; a positive gripper value opens.

        Without `look` no picture is drawn.

        Raises:
            ConfigError: if the action is not finite or misshapen; nothing moves.
            SimulatorError: before the first reset.
        """
        self._check_begun("step")
        values = checked("action", action, ACTION_SIZE)
        self._robot.command(values if self._exact else np.clip(values, -1.0, 1.0))
        return self._advance(look)

    def drive(
        self, opening_m: float, pose_step: np.ndarray | None = None, joints: np.ndarray | None = None, look: bool = True
    ) -> TimeStep:
        """Runs one control step as an arm's driver takes commands.

        Args:
            opening_m: the gripper's opening to be driven to, cut to its travel.
            pose_step: (6,) as in a relative action, clipped to [-1, 1]; None: zero.
            joints: (7,) rad to be driven to instead, cut to the joints' limits.
            look: whether pictures are drawn.

        Raises:
            ConfigError: if a command is not finite or misshapen; nothing moves.
            SimulatorError: before the first reset.
        """
        self._check_begun("drive")
        (opening,) = checked("opening_m", [opening_m], 1)
        if joints is None:
            step = np.zeros(6) if pose_step is None else checked("pose_step", pose_step, 6)
            self._robot.drive_pose(np.clip(step, -1.0, 1.0))
        else:
            self._robot.drive_joints(checked("joints", joints, 7))
        self._robot.drive_fingers(float(opening))
        return self._advance(look)

    def _check_begun(self, what: str) -> None:
        if self._now is None:
            raise SimulatorError(f"{what} was called before reset; call reset first")

    def _advance(self, look: bool) -> TimeStep:
        """Lets physics go on for one control step."""
        for _ in range(self._substeps):
            self._client.stepSimulation()
        self._fixtures.update()
        self._steps += 1
        self._now = self._time_step()
        return self.look() if look else self._now

    def look(self) -> TimeStep:
        """The present time step with its pictures, if time steps carry any.

        Raises:
            SimulatorError: before the first reset.
        """
        if self._now is None:
            raise SimulatorError("look was called before reset; call reset first")
        if self._draws and self._now.rgb_static is None:
            rgb_static, rgb_gripper = self.pictures()
            self._now = replace(self._now, rgb_static=rgb_static, rgb_gripper=rgb_gripper)
        return self._now

    @contextmanager
    def trial(self) -> Iterator[None]:
        """What is done within the block is undone at its end: the episode goes on as if it had not been."""
        client, robot, fixtures = self._client, vars(self._robot), vars(self._fixtures)
        saved, robot_before, fixtures_before = client.saveState(), dict(robot), dict(fixtures)
        steps, now = self._steps, self._now
        try:
            yield
        finally:
            client.restoreState(saved)
            client.removeState(saved)
            robot.update(robot_before)
            fixtures.update(fixtures_before)
            self._fixtures.show_lights()
            self._steps, self._now = steps, now

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """What the static and the gripper camera see now, each (rows, columns, 3) uint8; also without `cameras`."""
        return self._cameras.static(), self._cameras.gripper()

    def lenses(self) -> Lenses:
        """How the two cameras project."""
        return self._cameras.lenses()

    def close(self) -> None:
        """Frees the simulator; a second call does nothing."""
        if self._open:
            self._open = False
            self._client.disconnect()
            self._model.close()

    def __enter__(self) -> Self:
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
        """Observes everything but pictures."""
        state = self._state()
        fixtures = [state.slider, state.drawer, state.button, state.switch, float(state.lightbulb), float(state.led)]
        blocks = [
            value
            for colour in self._model.block_order
            for value in (
                *state.blocks[colour].position,
                *self._client.getEulerFromQuaternion(state.blocks[colour].orientation),
            )
        ]
        return TimeStep(
            rgb_static=None,
            rgb_gripper=None,
            robot_obs=self._robot.observation(),
            scene_obs=np.array(fixtures + blocks),
            state=state,
            step=self._steps,
            time_s=self._steps / CONTROL_RATE_HZ,
        )
