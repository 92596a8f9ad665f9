"""Random starting states from which a given task can be done."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError, SimulatorError
from deer_policies.interfaces import GRIPPER_CLOSE, GRIPPER_OPEN
from deer_sim.calvin.rules import Condition
from deer_sim.environment import BLOCKS
from deer_sim.playtable import kinematics
from deer_sim.playtable.robot import FINGER_MAX_M, INITIAL_JOINTS
from deer_sim.playtable.scene import DRAWER_RANGE_M, SURFACE_Z_M, SWITCH_RANGE_M, Scene, find_scene
from deer_sim.tasks import TASKS

_TOOL_SPREAD_M, _TOOL_SPREAD_RAD = 0.06, 0.1
_YAW_RAD, _YAW_SPREAD_RAD = math.pi / 2, math.pi / 8
_CABINET_Y_M, _CABINET_Z_M = 0.0924, 0.461
"""Where CALVIN's evaluation puts blocks behind the door."""
_DRAWER_Z_M = 0.362
_BLOCK_EDGE_M = 0.04
_GAP_M = 0.02
"""Least distance between the circles around two blocks on the table."""
_DOOR_GAP_M = 0.015
"""Least distance between a block on the table and the door's foot (at y = 0)."""
_STACK_GAP_M = 0.09
"""The same for the middle of a stack, whose upper block is as high as the door's grip."""
_PUSH_ROOM_M = 0.17
_OPEN_TRAVEL_M, _SLIDE_TRAVEL_M = 0.15, 0.18
"""What a door needs ahead of it for its task: the condition's threshold and 3 cm more."""
_MAX_TRIES = 1000


@dataclass(frozen=True)
class Start:
    """A starting state.

    Attributes:
        robot_obs: (15,), for `Environment.reset`.
        scene_obs: (24,), for `Environment.reset`.
        prefix: tasks to do first, in this order; after them the task itself can be done.
    """

    robot_obs: np.ndarray
    scene_obs: np.ndarray
    prefix: tuple[str, ...] = ()


def sample_start(task: str, scene: str, rng: np.random.Generator) -> Start:
    """Draws a start for `task` in `scene`.

    Fixtures and lights that the task does not need are in random states, mostly at an end of their travel. As in
    CALVIN's evaluation, one or two blocks lie on the table and at most one on either side of the cabinet, a quarter
    turn (up to 22.5 degrees more or less) about the vertical; tasks that need a block in the open drawer, or on top of
    another, get it there. Those that begin with a block in the hand (place_in_slider, place_in_drawer, stack_block)
    have a prefix: its lift from the table. The hand is up to 6 cm and 0.1 rad away from its initial pose along each
    axis, open or closed.

    Raises:
        ConfigError: if the task is unknown.
        SimulatorError: if the scene is unknown.
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; allowed: {', '.join(TASKS)}")
    table = find_scene(scene)
    block = next((colour for colour in BLOCKS if f"_{colour}_" in task), "") or str(rng.choice(BLOCKS))
    lightbulb, led = _lights(task, rng)
    slider = rng.uniform(*_slider_bounds(task, table, rng))
    drawer = rng.uniform(*_drawer_bounds(task, rng))
    poses = _place_blocks(task, block, table, slider, drawer, rng)
    scene_obs = np.concatenate(
        [
            [slider, drawer, 0.0, SWITCH_RANGE_M if lightbulb else 0.0, lightbulb, led],
            *(poses[colour] for colour in table.block_order),
        ]
    )
    grasped = task in ("place_in_slider", "place_in_drawer", "stack_block")
    return Start(sample_robot(rng), scene_obs, (f"lift_{block}_block_table",) if grasped else ())


def sample_condition(condition: Condition, scene: str, rng: np.random.Generator) -> Start:
    """Draws a start in a symbolic state of CALVIN's rules, with the blocks where this scene has room for them.

    Raises:
        SimulatorError: if the scene is unknown.
    """
    table = find_scene(scene)
    bulb, led = float(condition["lightbulb"]), float(condition["led"])
    fixtures = [
        table.slider_range * (condition["slider"] == "left"),
        DRAWER_RANGE_M * (condition["drawer"] == "open"),
        0.0,
        SWITCH_RANGE_M * bulb,
        bulb,
        led,
    ]
    poses = block_poses({colour: str(condition[f"{colour}_block"]) for colour in BLOCKS}, table, rng)
    return Start(sample_robot(rng), np.concatenate([fixtures, *(poses[colour] for colour in table.block_order)]))


def sample_robot(rng: np.random.Generator) -> np.ndarray:
    """Draws a robot_obs (15,) with the hand near its initial pose, open or closed."""
    joints = np.array(INITIAL_JOINTS)
    place, euler = kinematics.forward(joints)
    place = place + rng.uniform(-_TOOL_SPREAD_M, _TOOL_SPREAD_M, size=3)
    turn = kinematics.matrix_from_euler(rng.uniform(-_TOOL_SPREAD_RAD, _TOOL_SPREAD_RAD, size=3))
    euler = kinematics.euler_from_matrix(turn @ kinematics.matrix_from_euler(euler))
    width, gripper = (2 * FINGER_MAX_M, GRIPPER_OPEN) if rng.integers(2) else (0.0, GRIPPER_CLOSE)
    return np.concatenate([place, euler, [width], kinematics.inverse(place, euler, joints), [gripper]])


def _lights(task: str, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether the bulb and the LED are lit."""
    wanted = {"lightbulb": bool(rng.integers(2)), "led": bool(rng.integers(2))}
    for light in wanted:
        if task in (f"turn_on_{light}", f"turn_off_{light}"):
            wanted[light] = task.startswith("turn_off")
    return wanted["lightbulb"], wanted["led"]


def _anywhere(upper: float, rng: np.random.Generator) -> tuple[float, float]:
    """Bounds of a joint that the task does not need: closed, open, or (one in five) anywhere between."""
    return ((0.0, 0.0), (0.0, 0.0), (upper, upper), (upper, upper), (0.0, upper))[rng.integers(5)]


def _slider_bounds(task: str, scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """Between which positions the door starts; half of the time at the end for the door's own tasks."""
    upper = scene.slider_range
    exact = bool(rng.integers(2))
    if task == "move_slider_left":
        return (0.0, 0.0 if exact else upper - _SLIDE_TRAVEL_M)
    if task == "move_slider_right":
        return (upper if exact else _SLIDE_TRAVEL_M, upper)
    return _anywhere(upper, rng)


def _drawer_bounds(task: str, rng: np.random.Generator) -> tuple[float, float]:
    """Between which positions the drawer starts; half of the time at the end for the drawer's own tasks."""
    exact = bool(rng.integers(2))
    if task == "open_drawer":
        return (0.0, 0.0 if exact else DRAWER_RANGE_M - _OPEN_TRAVEL_M)
    if task == "close_drawer":
        return (DRAWER_RANGE_M if exact else _OPEN_TRAVEL_M, DRAWER_RANGE_M)
    if task.endswith("drawer"):
        return (DRAWER_RANGE_M, DRAWER_RANGE_M)
    return _anywhere(DRAWER_RANGE_M, rng)


def _open_side(scene: Scene, slider: float) -> str:
    """The side of the cabinet that the door leaves free."""
    return "slider_left" if slider < scene.slider_range / 2 else "slider_right"


def _layout(task: str, block: str, scene: Scene, slider: float, rng: np.random.Generator) -> dict[str, str]:
    """Which surface each block lies on; the first ones are placed first."""
    others = [str(colour) for colour in rng.permutation([colour for colour in BLOCKS if colour != block])]
    sides = [str(side) for side in rng.permutation(["slider_left", "slider_right"])]
    if task == "push_into_drawer":
        return {block: "table", others[0]: sides[0], others[1]: sides[1]}
    if task == "unstack_block":
        return {block: "table", others[0]: block, others[1]: sides[0]}
    if task == "stack_block":
        return {block: "table", others[0]: "table", others[1]: sides[0]}
    if task.startswith("lift") and task.endswith("slider"):
        side = _open_side(scene, slider)
        rest = [place for place in sides if place != side] if rng.integers(2) else ["table"]
        return {block: side, others[0]: "table", others[1]: rest[0]}
    if task.startswith("lift") and task.endswith("drawer"):
        return {block: "drawer", others[0]: "table", others[1]: sides[0]}
    if task == "place_in_slider":
        return {block: "table", others[0]: "table", others[1]: _closed_side(scene, slider)}
    rest = ["table", sides[0]] if rng.integers(2) else sides
    first = "table" if task.startswith(("rotate", "push", "lift", "place")) else str(rng.choice(["table", *sides]))
    if first != "table":
        rest = ["table", str(rng.choice(["table", next(side for side in sides if side != first)]))]
    return {block: first, others[0]: rest[0], others[1]: rest[1]}


def _closed_side(scene: Scene, slider: float) -> str:
    """The side of the cabinet that the door covers."""
    return "slider_right" if _open_side(scene, slider) == "slider_left" else "slider_left"


def _place_blocks(
    task: str, block: str, scene: Scene, slider: float, drawer: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws the poses (6,) of all blocks."""
    return block_poses(_layout(task, block, scene, slider, rng), scene, rng, drawer, task, block)


def block_poses(
    layout: dict[str, str],
    scene: Scene,
    rng: np.random.Generator,
    drawer: float = 0.0,
    task: str = "",
    block: str = "",
) -> dict[str, np.ndarray]:
    """Draws poses (6,) at which the blocks lie apart.

    Args:
        layout: by colour: the surface that the block lies on, 'drawer', or the colour of the block below, which comes
            before it.
        scene: of the surfaces.
        rng: of the draws.
        drawer: how far it is open, in m.
        task, block: leaves room for this task around this block.

    Raises:
        SimulatorError: if there is no room.
    """
    for _ in range(_MAX_TRIES):
        poses: dict[str, np.ndarray] = {}
        for colour, surface in layout.items():
            yaw = _YAW_RAD + rng.uniform(-_YAW_SPREAD_RAD, _YAW_SPREAD_RAD)
            if surface in poses:
                place = poses[surface][:3] + np.array([0.0, 0.0, _BLOCK_EDGE_M])
                yaw = float(poses[surface][5])
            else:
                clear = scene.block_extent(colour)[0] / 2 + _DOOR_GAP_M
                place = _spot(task if colour == block else "", surface, scene, drawer, clear, rng)
            poses[colour] = np.array([*place, 0.0, 0.0, yaw])
        if _apart(poses, layout, scene):
            return poses
    raise SimulatorError(f"no free place for the blocks of {task} in scene {scene.name} in {_MAX_TRIES} tries")


def _spot(task: str, surface: str, scene: Scene, drawer: float, clear: float, rng: np.random.Generator) -> np.ndarray:
    """A place (3,) on a surface, `clear` m in front of the door, with the room that `task` needs around the block."""
    if surface == "drawer":
        x = rng.uniform(scene.drawer_x - 0.10, scene.drawer_x + 0.10)
        return np.array([x, -0.055 - drawer + rng.uniform(-0.015, 0.015), _DRAWER_Z_M])
    area = scene.surfaces[surface]
    if surface != "table":
        middle = sum(area.x) / 2
        return np.array([middle + rng.uniform(-0.02, 0.02), _CABINET_Y_M + rng.uniform(-0.005, 0.005), _CABINET_Z_M])
    (left, right), (front, back) = area.x, (area.y[0], min(area.y[1], -clear))
    if task.startswith("push") and task.endswith("right"):
        right = max(left, min(right, 0.36 - _PUSH_ROOM_M))
    if task.startswith("push") and task.endswith("left"):
        left = min(right, left + _PUSH_ROOM_M)
    if task == "push_into_drawer":
        left, right = max(left, scene.drawer_x - 0.12), min(right, scene.drawer_x + 0.12)
        front, back = -0.13, -0.09
    if task == "unstack_block":
        back = -_STACK_GAP_M
    return np.array([rng.uniform(left, right), rng.uniform(front, back), SURFACE_Z_M])


def _apart(poses: dict[str, np.ndarray], layout: dict[str, str], scene: Scene) -> bool:
    """Whether blocks that lie side by side keep their distance."""
    lower = [colour for colour, surface in layout.items() if surface not in layout]
    for index, first in enumerate(lower):
        for second in lower[index + 1 :]:
            reach = sum(float(np.hypot(*scene.block_extent(colour)[:2])) / 2 for colour in (first, second))
            if np.linalg.norm(poses[first][:2] - poses[second][:2]) < reach + _GAP_M:
                return False
    return True
