"""One of CALVIN's official scenes for the engine: what it loads, and its settings."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import SimulatorError
from deer_policies.interfaces import CONTROL_RATE_HZ, MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD
from deer_sim.calvin.arm import arm_file
from deer_sim.calvin.data import read_settings
from deer_sim.engine.scene import ArmSettings, CameraSettings, FixtureSettings, Lens, Rgba, Surface, Vector
from deer_sim.environment import BLOCKS

_LOADING_SEED = 0
"""Official environments load their blocks where this seed puts them, before a reset moves them. The order in which
Bullet solves contacts depends on it."""
_PEDESTAL_RADIUS_M = 0.13
_PEDESTAL_OFFSET_M = 0.05
_JOINTS = {"joints": ("base__slide", "base__drawer"), "buttons": ("base__button",), "switches": ("base__switch",)}
_LIGHTS = ("lightbulb", "led")


def _vector(values: Any, where: str) -> Vector:
    """Three numbers."""
    x, y, z = _numbers(values, 3, where)
    return x, y, z


def _numbers(values: Any, count: int, where: str) -> tuple[float, ...]:
    """`count` numbers."""
    if not isinstance(values, list) or len(values) != count:
        raise SimulatorError(f"CALVIN's setting {where} is {values!r}; {count} numbers are needed")
    return tuple(float(value) for value in values)


def _expect(found: Any, wanted: Any, where: str) -> None:
    """Refuses a setting that the engine can't follow."""
    if found != wanted:
        raise SimulatorError(
            f"CALVIN's setting {where} is {found!r}; only {wanted!r} is supported, as in its scenes A-D"
        )


class CalvinModel:
    """An official scene; implements `deer_sim.engine.scene.Scene`.

    The order of the calls that load it is the official one, as Bullet's results depend on it to the last bit.
    """

    sorted_pairs = False
    """CALVIN asks for sorted pairs, and resets the physics afterwards, which undoes it."""
    official_reset = True

    def __init__(self, scene: str, data: Path, light_arm: bool = False) -> None:
        """Reads the settings of `scene` ('A' to 'D') in a folder of scene data.

        `light_arm` draws the arm from the meshes that it touches with.

        Raises:
            SimulatorError: if there is no such scene, a file is missing or malformed, or a setting is not supported.
        """
        groups = read_settings(data, scene)
        try:
            self._read(scene, groups)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SimulatorError(
                f"CALVIN's settings of scene {scene} in {data / 'conf'} are malformed: {error!r}"
            ) from error
        self._data = data / "data"
        self._folder = tempfile.TemporaryDirectory(prefix="deer_calvin_")
        self._robot_file = arm_file(data, groups["robot"]["filename"], Path(self._folder.name), light_arm)

    def _read(self, scene: str, groups: dict[str, dict[str, Any]]) -> None:
        """Takes over the settings."""
        settings, robot, env = groups["scene"], groups["robot"], groups["env"]
        _expect(float(env["control_freq"]), CONTROL_RATE_HZ, "env.control_freq")
        _expect(settings["robot_base_orientation"], [0, 0, 0], "scene.robot_base_orientation")
        self.name = f"calvin:{scene}"
        self.physics_rate_hz = float(env["bullet_time_step"])
        self.arm = _arm(robot)
        self.cameras = _cameras(groups["static"], groups["gripper"])
        self._base = _vector(settings["robot_base_position"], "scene.robot_base_position")
        self._scaling = float(settings["global_scaling"])
        self._boxes = {
            name: (_vector(low, f"scene.surfaces.{name}"), _vector(high, f"scene.surfaces.{name}"))
            for name, (low, high) in settings["surfaces"].items()
        }
        self.surfaces = {
            name: Surface((low[0], high[0]), (low[1], high[1]), low[2]) for name, (low, high) in self._boxes.items()
        }
        objects = settings["objects"]
        _expect(list(objects["fixed_objects"]), ["table"], "scene.objects.fixed_objects")
        table = objects["fixed_objects"]["table"]
        self.fixtures = _fixtures(table)
        self._table_file: str = table["file"]
        self._table_pose = (
            _vector(table["initial_pos"], "table.initial_pos"),
            _vector(table["initial_orn"], "table.initial_orn"),
        )
        self._block_files: dict[str, str] = {}
        for name, block in objects["movable_objects"].items():
            _expect(block["initial_pos"], "any", f"{name}.initial_pos")
            _expect(block["initial_orn"], "any", f"{name}.initial_orn")
            self._block_files[name.removeprefix("block_")] = block["file"]
        _expect(sorted(self._block_files), sorted(BLOCKS), "scene.objects.movable_objects")
        self.block_order = tuple(self._block_files)

    def load_robot(self, client: Any) -> int:
        """Loads the arm and the pedestal that it stands on, which is only seen."""
        body = self._load(client, self._robot_file, self._base, (0.0, 0.0, 0.0), useFixedBase=True)
        x, y, z = self._base
        pedestal = client.createVisualShape(
            client.GEOM_CYLINDER,
            rgbaColor=(1.0, 1.0, 1.0, 1.0),
            radius=_PEDESTAL_RADIUS_M,
            length=z,
            visualFramePosition=(x - _PEDESTAL_OFFSET_M, y, z / 2),
        )
        client.createMultiBody(baseVisualShapeIndex=pedestal)
        return body

    def load_blocks(self, client: Any) -> dict[str, int]:
        """Loads the blocks at random places."""
        rng = np.random.default_rng(_LOADING_SEED)
        bodies: dict[str, int] = {}
        for colour, file in self._block_files.items():
            low, high = self._boxes[str(rng.choice(list(self._boxes)))]
            position = rng.uniform(low, high).tolist()
            euler = rng.uniform([0, 0, -np.pi], [0, 0, np.pi]).tolist()
            bodies[colour] = self._load(client, self._data / file, position, euler, globalScaling=self._scaling)
        return bodies

    def load_table(self, client: Any) -> int:
        """Loads the table."""
        return self._load(client, self._data / self._table_file, *self._table_pose, globalScaling=self._scaling)

    def load_floor(self, client: Any) -> int:
        """Loads the floor."""
        return self._load(client, self._data / "plane" / "plane.urdf", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))

    def backdrop(self, lens: Lens, view: Any, projection: Any, wanted: np.ndarray) -> None:
        """Nothing: the official floor is a body."""

    def close(self) -> None:
        """Removes the files that were written."""
        self._folder.cleanup()

    def _load(self, client: Any, path: Path, position: Sequence[float], euler: Sequence[float], **how: Any) -> int:
        """Loads a URDF; raises SimulatorError if Bullet can't."""
        import pybullet

        try:
            return client.loadURDF(str(path), position, client.getQuaternionFromEuler(euler), **how)
        except pybullet.error as error:
            raise SimulatorError(
                f"Bullet can't load {path} ({error}); the scene data is incomplete or damaged, fetch it again"
            ) from error


def _arm(robot: dict[str, Any]) -> ArmSettings:
    """The arm's settings."""
    _expect(robot["arm_joint_ids"], list(range(7)), "robot.arm_joint_ids")
    _expect(robot["use_ik_fast"], False, "robot.use_ik_fast")
    _expect(robot["use_target_pose"], True, "robot.use_target_pose")
    _expect(robot["euler_obs"], True, "robot.euler_obs")
    closed, opened = _numbers(robot["gripper_joint_limits"], 2, "robot.gripper_joint_limits")
    _expect(closed, 0.0, "robot.gripper_joint_limits[0]")
    left, right = robot["gripper_joint_ids"]
    return ArmSettings(
        initial_joints=_numbers(robot["initial_joint_positions"], 7, "robot.initial_joint_positions"),
        lower_limits=_numbers(robot["lower_joint_limits"], 7, "robot.lower_joint_limits"),
        upper_limits=_numbers(robot["upper_joint_limits"], 7, "robot.upper_joint_limits"),
        joint_force=float(robot["max_joint_force"]),
        joint_speed=float(robot["max_velocity"]),
        finger_joints=(int(left), int(right)),
        finger_travel_m=opened,
        close_force=float(robot["gripper_force"]),
        open_force=float(robot["gripper_force"]) / 100,
        tool_link=int(robot["tcp_link_id"]),
        position_step_m=float(robot.get("max_rel_pos", MAX_POSITION_STEP_M)) * robot["magic_scaling_factor_pos"],
        rotation_step_rad=float(robot.get("max_rel_orn", MAX_ROTATION_STEP_RAD)) * robot["magic_scaling_factor_orn"],
    )


def _cameras(static: dict[str, Any], gripper: dict[str, Any]) -> CameraSettings:
    """The cameras' settings."""
    return CameraSettings(
        static=_lens(static),
        eye=_vector(static["look_from"], "static.look_from"),
        target=_vector(static["look_at"], "static.look_at"),
        up=_vector(static["up_vector"], "static.up_vector"),
        gripper=_lens(gripper),
    )


def _lens(camera: dict[str, Any]) -> Lens:
    """A camera's lens; its aspect must be that of its picture."""
    _expect(float(camera["aspect"]), camera["width"] / camera["height"], f"{camera['name']}.aspect")
    return Lens(
        rows=int(camera["height"]),
        columns=int(camera["width"]),
        fov_deg=float(camera["fov"]),
        near_m=float(camera["nearval"]),
        far_m=float(camera["farval"]),
    )


def _fixtures(table: dict[str, Any]) -> FixtureSettings:
    """The table's joints and lights."""
    initial: list[float] = []
    for kind, names in _JOINTS.items():
        _expect(tuple(table[kind]), names, f"table.{kind}")
        initial += [float(table[kind][name]["initial_state"]) for name in names]
    _expect(tuple(table["lights"]), _LIGHTS, "table.lights")
    _expect(initial, [0.0, 0.0, 0.0, 0.0], "table's initial_state")
    _expect(table["buttons"]["base__button"]["effect"], "led", "base__button.effect")
    _expect(table["switches"]["base__switch"]["effect"], "lightbulb", "base__switch.effect")
    bulb, led = (table["lights"][name] for name in _LIGHTS)
    return FixtureSettings(
        joints=("base__slide", "base__drawer", "base__button", "base__switch"),
        initial=(0.0, 0.0, 0.0, 0.0),
        bulb_link=bulb["link"],
        led_link=led["link"],
        bulb_colour=_rgba(bulb["color"]),
        led_colour=_rgba(led["color"]),
    )


def _rgba(values: Any) -> Rgba:
    """A light's colour."""
    red, green, blue, alpha = _numbers(values, 4, "table.lights.color")
    return red, green, blue, alpha
