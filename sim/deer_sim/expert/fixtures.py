"""The eight fixture tasks: drawer, sliding door, button and switch, all with the gripper closed."""

from __future__ import annotations

import math

import numpy as np

from deer_sim.expert.motion import Goal
from deer_sim.expert.paths import (
    TOOL_DOWN,
    TRAVEL_Z_M,
    UP,
    along_tool,
    corridor,
    in_cabinet_front,
    out_of_cabinet,
    outside,
    pitched,
    ramp,
    risen_first,
)
from deer_sim.expert.view import View, wrapped
from deer_sim.playtable.scene import Scene

_PUSH_M = 0.06
"""How far ahead of the tool a push aims."""
_HANDLE_Z_M = 0.365
_GAP_Y_M = -0.2105
"""Middle of the gap between the closed drawer's front and its handle."""
_HANDLE_FRONT_Y_M = -0.261
_BUTTON_Y_M, _BUTTON_DOWN_Z_M, _BUTTON_UP_Z_M = -0.12, 0.465, 0.53
_DOOR_HANDLE_X_M = 0.14
"""Handle's middle from the door's frame."""
_DOOR_Y_M, _DOOR_Z_M = -0.008, 0.545
_DOOR_BESIDE_M = 0.074
_SWITCH_AXIS = np.array([0.0, 0.5, math.sqrt(0.75)])
_SWITCH_BAR = np.array([0.0, 0.0205, 0.527])
"""Middle of the switch's bar at joint 0; x is the scene's."""
_SWITCH_LEAN_RAD = 0.6


def _from_above(view: View, end: np.ndarray, error: float) -> np.ndarray:
    """Steers to `end` from above with the tool down."""
    if in_cabinet_front(view.position):
        return out_of_cabinet(view.position)
    return corridor(view.position, end, UP, TRAVEL_Z_M - end[2], error + _misaligned(view, TOOL_DOWN), 0.008, 0.045)


def _misaligned(view: View, euler: np.ndarray) -> float:
    """A rotation error as a length: the tool's tip is off by about 0.1 m a radian; small errors do not matter."""
    return 0.1 * max(0.0, float(np.abs(wrapped(euler - view.euler)).max()) - 0.1)


def open_drawer(view: View, scene: Scene) -> Goal:
    """Down into the gap behind the handle, then pull."""
    end = np.array([scene.drawer_x, _GAP_Y_M - view.drawer, _HANDLE_Z_M])
    inside = ramp(-view.position[2], -0.405, -0.385)
    dx, dy = view.position[0] - end[0], view.position[1] - end[1]
    error = math.hypot(outside(dx, -0.02, 0.02), outside(dy, -0.016 * inside, 0.016 * inside))
    target = _from_above(view, end, error)
    target[1] -= _PUSH_M * inside * (1.0 - ramp(error, 0.005, 0.02))
    return Goal(target, TOOL_DOWN, open=False)


def close_drawer(view: View, scene: Scene) -> Goal:
    """Down in front of the handle, then push."""
    end = np.array([scene.drawer_x, _HANDLE_FRONT_Y_M - view.drawer - 0.04, _HANDLE_Z_M])
    inside = ramp(-view.position[2], -0.405, -0.385)
    dx, dy = view.position[0] - end[0], view.position[1] - end[1]
    error = math.hypot(outside(dx, -0.03, 0.03), outside(dy, -0.06, 0.005 + 0.025 * inside))
    target = _from_above(view, end, error)
    target[1] += (_PUSH_M + 0.03) * inside * (1.0 - ramp(error, 0.005, 0.02))
    return Goal(target, TOOL_DOWN, open=False)


def move_slider(view: View, scene: Scene, left: bool) -> Goal:
    """Beside the door's handle from the front, then sweep along the door."""
    side = 1.0 if left else -1.0
    handle_x = scene.slider_x + _DOOR_HANDLE_X_M - view.slider
    end = np.array([handle_x + side * _DOOR_BESIDE_M, _DOOR_Y_M, _DOOR_Z_M])
    inside = ramp(float(view.position[1]), -0.05, -0.025)
    beside, dz = side * (view.position[0] - handle_x), view.position[2] - end[2]
    forgiven = 0.025 * inside
    error = math.hypot(
        outside(beside, _DOOR_BESIDE_M - 0.005 - forgiven, _DOOR_BESIDE_M + 0.02 + forgiven), outside(dz, -0.02, 0.02)
    )
    error += _misaligned(view, TOOL_DOWN)
    target = corridor(view.position, end, np.array([0.0, -1.0, 0.0]), 0.1, error, 0.01, 0.04)
    if view.position[1] < _DOOR_Y_M - 0.06:
        target = risen_first(view.position, target)
    target[0] -= side * (_PUSH_M + 0.02) * inside * (1.0 - ramp(error, 0.01, 0.03))
    return Goal(target, TOOL_DOWN, open=False)


def press_button(view: View, scene: Scene, lit: bool) -> Goal:
    """Onto the button from above; up again if it is down and the LED is not as wanted, since each press toggles it."""
    down = np.array([scene.button_x, _BUTTON_Y_M, _BUTTON_DOWN_Z_M])
    done = view.led == lit
    if done or view.button > 0.01:
        down[2] = _BUTTON_UP_Z_M
    error = math.hypot(*(view.position[:2] - down[:2]))
    return Goal(_from_above(view, down, error), TOOL_DOWN, open=False)


def flip_switch(view: View, scene: Scene, up: bool) -> Goal:
    """Leaning in below (above) the switch's bar, then push it up (down) along its axis."""
    sign = 1.0 if up else -1.0
    euler, retreat = pitched(_SWITCH_LEAN_RAD), along_tool(_SWITCH_LEAN_RAD)
    bar = _SWITCH_BAR + np.array([scene.switch_x, 0.0, 0.0]) + view.switch * _SWITCH_AXIS
    end = bar - sign * 0.055 * _SWITCH_AXIS
    offset = view.position - end
    along = float(offset @ retreat)
    across = float(offset @ np.cross(np.array([1.0, 0.0, 0.0]), retreat))
    inside = ramp(-along, -0.02, -0.005)
    error = math.hypot(offset[0], outside(across, -0.02 * inside, 0.02 * inside)) + _misaligned(view, euler)
    target = corridor(view.position, end, retreat, 0.13, error, 0.012, 0.05)
    if error > 0.05 and not in_cabinet_front(view.position):
        target = risen_first(view.position, target)
    target = target + sign * _PUSH_M * inside * (1.0 - ramp(error, 0.01, 0.03)) * _SWITCH_AXIS
    return Goal(target, euler, open=False)
