"""The block tasks: grasp, lift, turn, push, carry, stack; each follows from what is seen now, so mishaps are mended."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from deer_sim.expert.fixtures import BUTTON_Y_M, DOOR_HANDLE_X_M, move_slider
from deer_sim.expert.grasp import between_fingers, block_half_extent, grasp, held
from deer_sim.expert.grip import in_cabinet
from deer_sim.expert.motion import Goal
from deer_sim.expert.paths import (
    TOOL_DOWN,
    TRAVEL_Z_M,
    UP,
    along_tool,
    approach,
    beyond_reach,
    misaligned,
    outside,
    pitched,
    ramp,
)
from deer_sim.expert.view import View
from deer_sim.playtable.scene import SURFACE_Z_M, Scene

_OUT_LEAN_RAD = 0.55
_PLACE_LEAN_RAD = 0.5
_DOOR_WIDTH_M = 0.28
_TURN_RAD = 1.35
"""How far a block is turned; the condition asks for 60 degrees."""
_TURN_Y_M = -0.1
"""Blocks are drawn so far to the front while they turn, for the hand sweeps over a circle of 0.1 m."""
_FINGERS_HALF_M = (0.025, 0.017)
"""Half extents of the closed fingers along x and y with the tool down, with some play."""
_BESIDE_M = 0.015
_TOUCH_M = 0.03
"""The tapered fingers touch a block when they are up to this much closer than their half extent."""
_PUSH_Z_M = 0.468
_PUSH_M = 0.06
_CARRY_M = 0.13
_BUTTON_HALF_M, _BEHIND_BUTTON_Y_M = 0.04, -0.045
_HIGHEST_M = 0.7
_STACKED_M = 0.0405
_ABOVE_M, _AWAY_M = 0.045, 0.1
"""Where the tool centre point is clear of a block; the fingers reach 2 cm below it and open by 4 cm to either side."""
_FRONT_OF_DOOR_Y_M = 0.02
_HANDLE_FRONT_Y_M = -0.037
"""Foremost part of the door's handle, with some play."""


def _up(view: View, open_gripper: bool) -> Goal:
    """Straight up from where the tool is."""
    x, y, z = view.position
    return Goal(np.array([x, y, min(z + 0.06, _HIGHEST_M)]), view.euler, open=open_gripper)


def lift(view: View, scene: Scene, colour: str) -> Goal:
    """Grasps a block where it is and raises it; out of the cabinet along the tool, after moving the door away."""
    if held(view, scene, colour):
        if view.position[1] > -0.02 and view.position[2] < 0.62:
            return Goal(view.position + 0.06 * along_tool(_OUT_LEAN_RAD), view.euler, open=False)
        return _up(view, open_gripper=False)
    if not in_cabinet(view, colour):
        return grasp(view, scene, colour)
    x = float(view.blocks[colour].position[0])
    door = scene.slider_x - view.slider + _DOOR_WIDTH_M / 2
    margin = _DOOR_WIDTH_M / 2 + (0.085 if view.closing else 0.065)
    left = door < x
    movable = view.slider < scene.slider_range - 0.01 if left else view.slider > 0.01
    if abs(door - x) < margin and movable and view.position[1] < 0.03:
        return move_slider(view, scene, left)
    return grasp(view, scene, colour)


def rotate(view: View, scene: Scene, colour: str, start: View, sign: int) -> Goal:
    """Turns a block about the vertical, counter-clockwise for `sign` +1; regrasps it if the wrist is at its end."""
    turn = view.blocks[colour].rotation @ start.blocks[colour].rotation.T
    turned = sign * math.atan2(turn[1, 0], turn[0, 0])
    if turned < -2.0:
        turned += 2 * math.pi
    left = _TURN_RAD - turned
    origin = start.blocks[colour].position
    rest_z = origin[2] + 0.002
    if not held(view, scene, colour):
        return grasp(view, scene, colour, math.pi / 2 - sign * 0.3)
    place = np.array([view.position[0], min(view.position[1], max(_TURN_Y_M, origin[1] - 0.06)), rest_z])
    if left < 0.1:
        low = view.position[2] < rest_z + 0.004
        return Goal(place - 0.004 * UP, view.euler, open=low)
    euler = np.array([math.pi, 0.0, view.euler[2] + sign * min(left, 0.5)])
    return Goal(place + 0.003 * UP, euler, open=False)


def push(view: View, scene: Scene, colour: str, start: View, sign: int) -> Goal:
    """Sweeps a block along x with closed fingers; carries it where there is no room for the fingers beside it."""
    position = view.blocks[colour].position
    half = block_half_extent(view, scene, colour)
    reach = half[0] + _FINGERS_HALF_M[0]
    end = np.array([position[0] - sign * (reach + _BESIDE_M), position[1], _PUSH_Z_M])
    origin = start.blocks[colour].position
    at_button = _meets_button(scene, origin, half, sign)
    if held(view, scene, colour) or at_button or not _free(view, scene, colour, end):
        y = _BEHIND_BUTTON_Y_M if at_button else origin[1]
        return carry(view, scene, colour, np.array([origin[0] + sign * _CARRY_M, y, origin[2] + 0.002]))
    inside = ramp(-view.position[2], -0.49, -0.475)
    behind, dy = sign * (position[0] - view.position[0]) - reach, view.position[1] - position[1]
    error = math.hypot(
        outside(behind, 0.007 - (_TOUCH_M + 0.007) * inside, 0.03 + 0.02 * inside), outside(dy, -0.008, 0.008)
    )
    goal = approach(view, end, TOOL_DOWN, UP, TRAVEL_Z_M - end[2], error)
    ahead = sign * _PUSH_M * inside * (1.0 - ramp(error, 0.005, 0.02))
    return replace(goal, position=goal.position + np.array([ahead, 0.0, 0.0]))


def _meets_button(scene: Scene, origin: np.ndarray, half: np.ndarray, sign: int) -> bool:
    """Whether the button's base is in the way of a block that is pushed from `origin`."""
    ahead = sign * (scene.button_x - origin[0])
    in_line = abs(origin[1] - BUTTON_Y_M) < _BUTTON_HALF_M + half[1]
    return bool(in_line and 0.0 < ahead < _CARRY_M + half[0] + _BUTTON_HALF_M)


def _free(view: View, scene: Scene, colour: str, end: np.ndarray) -> bool:
    """Whether the closed fingers fit at `end` without landing on another block, a fixture or beside the table."""
    for other in view.blocks:
        if other != colour:
            gap = np.abs(view.blocks[other].position[:2] - end[:2]) - block_half_extent(view, scene, other)[:2]
            if (gap < np.array(_FINGERS_HALF_M) + 0.004).all() and abs(view.blocks[other].position[2] - end[2]) < 0.06:
                return False
    on_button = abs(end[0] - scene.button_x) < _BUTTON_HALF_M + _FINGERS_HALF_M[0] and end[1] < -0.06
    handle_x = scene.slider_x + DOOR_HANDLE_X_M - view.slider
    at_handle = abs(end[0] - handle_x) < 0.021 + _FINGERS_HALF_M[0] and end[1] > -0.055
    return not on_button and not at_handle and bool(end[1] < 0.0) and abs(end[0]) < 0.47 and beyond_reach(end) < 0.8


def carry(view: View, scene: Scene, colour: str, target: np.ndarray, floor_z: float = 0.52) -> Goal:
    """Takes a block to where the tool is at `target`, over obstacles up to `floor_z`, and lets it go there."""
    if not held(view, scene, colour):
        return grasp(view, scene, colour)
    error = float(np.linalg.norm(view.position[:2] - target[:2]))
    euler = np.array([math.pi, 0.0, view.euler[2]])
    goal = approach(view, target, euler, UP, max(floor_z - target[2], 0.03), error)
    there = error < 0.012 and view.position[2] < target[2] + 0.006
    return replace(goal, open=there)


def place_in_drawer(view: View, scene: Scene, colour: str) -> Goal:
    """Lowers the held block into the open drawer and lets go."""
    front = -0.182 - view.drawer
    position = view.blocks[colour].position
    if front < position[1] < front + 0.22 and position[2] < 0.41 and not view.closing:
        return _up(view, open_gripper=True)
    spots = [np.array([scene.drawer_x + dx, front + 0.085, 0.372]) for dx in (0.0, 0.1, -0.1)]
    return carry(view, scene, colour, _freest(view, colour, spots), floor_z=TRAVEL_Z_M)


def place_in_cabinet(view: View, scene: Scene, colour: str) -> Goal:
    """Reaches with the held block into the side of the cabinet that the door leaves open, and lets go."""
    if in_cabinet(view, colour) and not view.closing:
        return Goal(view.position + 0.06 * along_tool(_PLACE_LEAN_RAD), view.euler, open=True)
    if not held(view, scene, colour):
        return grasp(view, scene, colour)
    left, right = scene.cabinet_x
    door_left = scene.slider_x - view.slider
    spans = [(left, door_left), (door_left + _DOOR_WIDTH_M, right)]
    low, high = max(spans, key=lambda span: span[1] - span[0])
    spots = [np.array([(low + high) / 2 + dx, 0.085, 0.474]) for dx in (0.0, 0.045, -0.045)]
    end = _freest(view, colour, spots)
    euler, retreat = pitched(_PLACE_LEAN_RAD), along_tool(_PLACE_LEAN_RAD)
    offset = view.position - end
    error = float(np.linalg.norm(offset - (offset @ retreat) * retreat)) + misaligned(view, euler)
    goal = approach(view, end, euler, retreat, 0.2, error)
    return replace(goal, open=bool(error < 0.02 and offset @ retreat < 0.008))


def _freest(view: View, colour: str, spots: list[np.ndarray]) -> np.ndarray:
    """The first of `spots` where no other block is near, or else the one with the most room."""
    others = [pose.position for name, pose in view.blocks.items() if name != colour]
    room = [min(float(np.linalg.norm(spot - other)) for other in others) for spot in spots]
    return next((spot for spot, free in zip(spots, room, strict=True) if free > 0.075), spots[int(np.argmax(room))])


def stack(view: View, scene: Scene, colour: str) -> Goal:
    """Sets the held block down on another one, its sides along the other's."""
    base = base_for(view, colour)
    below, block = view.blocks[base], view.blocks[colour]
    offset = block.position - below.position
    if math.hypot(*offset[:2]) < 0.025 and 0.03 < offset[2] < 0.06 and not view.closing:
        return _up(view, open_gripper=True)
    if not held(view, scene, colour):
        return grasp(view, scene, colour)
    handle_x = scene.slider_x + DOOR_HANDLE_X_M - view.slider
    back = below.position[1] + block_half_extent(view, scene, colour)[1] - _HANDLE_FRONT_Y_M
    forward = min(0.012, max(0.0, back)) if abs(below.position[0] - handle_x) < 0.06 else 0.0
    offset[1] += forward
    target = view.position - offset + np.array([0.0, 0.0, _STACKED_M])
    twist = _yaw(below.rotation) - _yaw(block.rotation)
    twist -= math.pi / 2 * round((twist + view.euler[2] - math.pi / 2) / (math.pi / 2))
    euler = np.array([math.pi, 0.0, view.euler[2] + twist])
    error = math.hypot(*offset[:2]) + 0.5 * misaligned(view, euler)
    goal = approach(view, target, euler, UP, TRAVEL_Z_M - target[2] + 0.02, error, inner=0.012, outer=0.03)
    return replace(goal, open=bool(error < 0.015 and offset[2] < _STACKED_M + 0.004))


def _yaw(rotation: np.ndarray) -> float:
    """Angle in rad about the vertical of a block's long axis."""
    return math.atan2(rotation[1, 0], rotation[0, 0])


def unstack(view: View, scene: Scene, colour: str) -> Goal:
    """Takes the upper block off."""
    if held(view, scene, colour):
        return _up(view, open_gripper=False)
    return grasp(view, scene, colour)


def push_into_drawer(view: View, scene: Scene, colour: str) -> Goal:
    """Sweeps a block from behind over the table's edge; carries it where the fingers do not fit behind it."""
    position = view.blocks[colour].position
    half = block_half_extent(view, scene, colour)
    reach = half[1] + _FINGERS_HALF_M[1]
    end = np.array([position[0], position[1] + reach + _BESIDE_M, _PUSH_Z_M])
    over_drawer = abs(position[0] - scene.drawer_x) < 0.17 - half[0]
    fits = over_drawer and position[1] < -0.05 and _free(view, scene, colour, end)
    if held(view, scene, colour) or position[2] < SURFACE_Z_M - 0.02 or not fits:
        return place_in_drawer(view, scene, colour)
    inside = ramp(-view.position[2], -0.49, -0.475)
    behind, dx = view.position[1] - position[1] - reach, view.position[0] - position[0]
    error = math.hypot(
        outside(behind, 0.007 - (_TOUCH_M + 0.007) * inside, 0.03 + 0.02 * inside), outside(dx, -0.012, 0.012)
    )
    goal = approach(view, end, TOOL_DOWN, UP, TRAVEL_Z_M - end[2], error)
    ahead = -_PUSH_M * inside * (1.0 - ramp(error, 0.005, 0.02))
    return replace(goal, position=goal.position + np.array([0.0, ahead, 0.0]))


def leave(view: View, scene: Scene, colour: str) -> Goal:
    """Sets down a block that is in the hand, and moves up from one that the fingers would press on when they open."""
    if not between_fingers(view, colour):
        return _up(view, open_gripper=not view.closing)
    above_table = view.position[1] < _FRONT_OF_DOOR_Y_M and view.blocks[colour].position[2] > SURFACE_Z_M - 0.02
    if held(view, scene, colour) and above_table:
        return carry(view, scene, colour, _free_spot(view, scene, colour))
    return _up(view, open_gripper=True)


def _free_spot(view: View, scene: Scene, colour: str) -> np.ndarray:
    """Where the tool (3,) puts a block down on the table: below where it is, or else beside what lies there."""
    x, y = view.position[0], float(np.clip(view.position[1], -0.13, -0.07))
    others = [pose.position[:2] for name, pose in view.blocks.items() if name != colour and pose.position[1] < 0.025]
    others.append(np.array([scene.button_x, BUTTON_Y_M]))
    spots = [np.array([x + dx, y]) for dx in (0.0, 0.1, -0.1, 0.2, -0.2) if abs(x + dx) < 0.34]
    room = [min(float(np.linalg.norm(spot - other)) for other in others) for spot in spots]
    best = next((spot for spot, free in zip(spots, room, strict=True) if free > 0.085), spots[int(np.argmax(room))])
    return np.array([*best, SURFACE_Z_M + 0.002])


def clear_of(view: View, colour: str) -> bool:
    """Whether the fingers are above a block or away from it, so that they may open, close and turn."""
    offset = view.position - view.blocks[colour].position
    away = offset[2] > _ABOVE_M or float(np.linalg.norm(offset)) > _AWAY_M or view.position[1] > _FRONT_OF_DOOR_Y_M
    return not between_fingers(view, colour) and bool(away)


def base_for(view: View, colour: str) -> str:
    """The block that another one is best stacked on."""
    return min(
        (name for name in view.blocks if name != colour),
        key=lambda name: (in_cabinet(view, name), abs(view.blocks[name].position[2] - SURFACE_Z_M) > 0.01),
    )


def upper_block(view: View) -> str | None:
    """The block that lies on another one, if there is one."""
    for top, pose in view.blocks.items():
        for bottom, other in view.blocks.items():
            offset = pose.position - other.position
            if top != bottom and math.hypot(*offset[:2]) < 0.05 and 0.03 < offset[2] < 0.06:
                return top
    return None


def loose_block(view: View, scene: Scene) -> str:
    """The block on the table that is nearest to the drawer."""

    def cost(colour: str) -> tuple[bool, float]:
        position = view.blocks[colour].position
        on_table = abs(position[2] - SURFACE_Z_M) < 0.01 and position[1] < 0.02
        return not on_table, abs(float(position[0]) - scene.drawer_x)

    return min(view.blocks, key=cost)


def nearest_block(view: View) -> str:
    """The block nearest to the tool: the one in the hand, if there is one."""
    return min(view.blocks, key=lambda name: float(np.linalg.norm(view.blocks[name].position - view.position)))
