"""The eight fixture tasks: drawer, sliding door, button and switch, all with the gripper closed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from deer_sim.expert.motion import Goal
from deer_sim.expert.paths import (
    TOOL_DOWN,
    TRAVEL_Z_M,
    UP,
    along_tool,
    approach,
    misaligned,
    outside,
    pitched,
    ramp,
)
from deer_sim.expert.view import View
from deer_sim.playtable.scene import Scene

_PUSH_M = 0.06
"""How far ahead of the tool a push aims."""
_HANDLE_Z_M = 0.365
_GAP_Y_M = -0.2105
"""Middle of the gap between the closed drawer's front and its handle."""
_HANDLE_FRONT_Y_M = -0.261
BUTTON_Y_M, _BUTTON_DOWN_Z_M, _BUTTON_UP_Z_M = -0.12, 0.465, 0.53
DOOR_HANDLE_X_M = 0.14
"""Handle's middle from the door's frame."""
_DOOR_Y_M, _DOOR_Z_M = -0.008, 0.545
_DOOR_BESIDE_M = 0.074
_SWITCH_AXIS = np.array([0.0, 0.5, math.sqrt(0.75)])
_SWITCH_BAR = np.array([0.0, 0.0205, 0.527])
"""Middle of the switch's bar at joint 0; x is the scene's."""
_SWITCH_LEAN_RAD = 0.6


def _from_above(view: View, end: np.ndarray, error: float) -> Goal:
    """On the way to `end` from above with the tool down."""
    return approach(view, end, TOOL_DOWN, UP, TRAVEL_Z_M - end[2], error + misaligned(view, TOOL_DOWN))


def _shifted(goal: Goal, shift: np.ndarray) -> Goal:
    """The goal moved by `shift` (3,) m."""
    return replace(goal, position=goal.position + shift)


def open_drawer(view: View, scene: Scene) -> Goal:
    """Down into the gap behind the handle, then pull."""
    end = np.array([scene.drawer_x, _GAP_Y_M - view.drawer, _HANDLE_Z_M])
    inside = ramp(-view.position[2], -0.405, -0.385)
    dx, dy = view.position[0] - end[0], view.position[1] - end[1]
    error = math.hypot(outside(dx, -0.02, 0.02), outside(dy, -0.025 * inside, 0.025 * inside))
    pull = _PUSH_M * inside * (1.0 - ramp(error, 0.005, 0.02))
    return _shifted(_from_above(view, end, error), np.array([0.0, -pull, 0.0]))


def close_drawer(view: View, scene: Scene) -> Goal:
    """Down in front of the handle, then push."""
    end = np.array([scene.drawer_x, _HANDLE_FRONT_Y_M - view.drawer - 0.04, _HANDLE_Z_M])
    inside = ramp(-view.position[2], -0.405, -0.385)
    dx, dy = view.position[0] - end[0], view.position[1] - end[1]
    error = math.hypot(outside(dx, -0.03, 0.03), outside(dy, -0.06, 0.005 + 0.035 * inside))
    push = (_PUSH_M + 0.03) * inside * (1.0 - ramp(error, 0.005, 0.02))
    return _shifted(_from_above(view, end, error), np.array([0.0, push, 0.0]))


def move_slider(view: View, scene: Scene, left: bool) -> Goal:
    """Beside the door's handle from the front, then sweep along the door."""
    side = 1.0 if left else -1.0
    handle_x = scene.slider_x + DOOR_HANDLE_X_M - view.slider
    end = np.array([handle_x + side * _DOOR_BESIDE_M, _DOOR_Y_M, _DOOR_Z_M])
    inside = ramp(float(view.position[1]), -0.05, -0.025)
    beside, dz = side * (view.position[0] - handle_x), view.position[2] - end[2]
    forgiven = 0.045 * inside
    error = math.hypot(
        outside(beside, _DOOR_BESIDE_M - 0.005 - forgiven, _DOOR_BESIDE_M + 0.02 + 0.02 * inside),
        outside(dz, -0.02, 0.02),
    )
    error += misaligned(view, TOOL_DOWN)
    goal = approach(view, end, TOOL_DOWN, np.array([0.0, -1.0, 0.0]), 0.1, error, inner=0.01, outer=0.04)
    sweep = (_PUSH_M + 0.02) * inside * (1.0 - ramp(error, 0.01, 0.03))
    return _shifted(goal, np.array([-side * sweep, 0.0, 0.0]))


def press_button(view: View, scene: Scene, lit: bool) -> Goal:
    """Onto the button from above; up again if it is down and the LED is not as wanted, since each press toggles it."""
    down = np.array([scene.button_x, BUTTON_Y_M, _BUTTON_DOWN_Z_M])
    done = view.led == lit
    if done or view.button > 0.01:
        down[2] = _BUTTON_UP_Z_M
    error = math.hypot(*(view.position[:2] - down[:2]))
    return _from_above(view, down, error)


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
    slack = 0.008 + 0.027 * inside
    error = math.hypot(outside(offset[0], -0.02, 0.02), outside(across, -slack, slack)) + misaligned(view, euler)
    goal = approach(view, end, euler, retreat, 0.13, error, inner=0.012, outer=0.06)
    return _shifted(goal, sign * _PUSH_M * inside * (1.0 - ramp(error, 0.01, 0.03)) * _SWITCH_AXIS)
