"""Vector fields that lead the tool to a place without knocking things over; continuous in the tool's position.

Continuous fields make better labels than timed waypoints: what to do follows from where the tool is, from any state.
"""

from __future__ import annotations

import math

import numpy as np

from deer_sim.expert.motion import Goal
from deer_sim.expert.view import View, wrapped

TOOL_DOWN = np.array([math.pi, 0.0, math.pi / 2])
"""Tool pointing down, fingers opening along the world's x axis."""
UP = np.array([0.0, 0.0, 1.0])
TRAVEL_Z_M = 0.56
"""Height of the tool centre point at which nothing on the table is in the way; the fingertips are 2 cm lower."""
_SHOULDER = np.array([-0.34, -0.46, 0.573])
_WRIST_M, _REACH_M = 0.247, 0.86
"""From the tool centre point to the wrist, and from the shoulder to the wrist at most."""
_FRONT_Y_M = -0.065
_OUT_Y_M = -0.12


def ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, linear in between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def beyond_reach(place: np.ndarray) -> float:
    """0 where the tool can be above `place` (3,) at the travel height and point down, 1 where it clearly can't."""
    wrist = np.array([place[0], place[1], TRAVEL_Z_M + _WRIST_M])
    return ramp(float(np.linalg.norm(wrist - _SHOULDER)), _REACH_M - 0.06, _REACH_M)


def outside(value: float, low: float, high: float) -> float:
    """Distance of a value from the interval [low, high]; 0 inside."""
    return max(low - value, value - high, 0.0)


def pitched(angle_rad: float) -> np.ndarray:
    """Euler angles (3,) of the tool leaning by `angle_rad` so that the fingers point to the table's back."""
    return np.array([math.pi, -angle_rad, math.pi / 2])


def along_tool(angle_rad: float) -> np.ndarray:
    """Direction (3,) in which a tool that leans by `angle_rad` is drawn back."""
    return np.array([0.0, -math.sin(angle_rad), math.cos(angle_rad)])


def corridor(
    position: np.ndarray,
    end: np.ndarray,
    retreat: np.ndarray,
    length: float,
    error: float,
    inner: float,
    outer: float,
    clear: float,
) -> np.ndarray:
    """Where to steer (3,) to enter a place along a fixed direction: back out first, then sideways, then in.

    Args:
        position: of the tool (3,).
        end: where the corridor ends (3,).
        retreat: unit vector (3,) from the end to the mouth.
        length: from end to mouth in m.
        error: how far the tool is off the corridor's axis, in m; the caller may forgive some of it or add rotations.
        inner, outer: up to `inner` the tool may go in all the way; from `outer` on it stays at the mouth.
        clear: the last part of the corridor in m, which is free to enter only with an error below 1.5 times `inner`.
    """
    offset = position - end
    along = float(offset @ retreat)
    lateral = offset - along * retreat
    needed = clear * ramp(error, inner, 1.5 * inner) + (length - clear) * ramp(error, 1.5 * inner, outer)
    free = ramp(along, needed - 0.05, needed - 0.01)
    return end + needed * retreat + (1.0 - free) * lateral


def risen_first(position: np.ndarray, target: np.ndarray, height: float = 0.52) -> np.ndarray:
    """The target, or, from a low place, first the point straight above the tool."""
    free = ramp(float(position[2]), height - 0.05, height)
    return np.array(
        [
            position[0] + free * (target[0] - position[0]),
            position[1] + free * (target[1] - position[1]),
            max(target[2], height + 0.04) * (1.0 - free) + target[2] * free,
        ]
    )


def misaligned(view: View, euler: np.ndarray) -> float:
    """A rotation error as a length: the fingertips are off by about 0.1 m a radian; small errors do not matter."""
    return 0.1 * max(0.0, float(np.abs(wrapped(euler - view.euler)).max()) - 0.1)


def approach(
    view: View,
    end: np.ndarray,
    euler: np.ndarray,
    retreat: np.ndarray,
    length: float,
    error: float,
    inner: float = 0.008,
    outer: float = 0.045,
    clear: float = 0.0,
) -> Goal:
    """Goal on the way to `end` with the gripper closed: out of the cabinet, up, to the corridor's mouth, then in.

    Args:
        view: what is seen.
        end, euler: where to get to.
        retreat, length, error, inner, outer, clear: see `corridor`.
    """
    position = view.position
    aside = abs(float(position[0] - end[0]))
    if max(aside, float(position[1] - end[1])) > 0.06 and position[1] > _FRONT_Y_M and position[2] < 0.68:
        return Goal(np.array([position[0], _OUT_Y_M, position[2]]), view.euler, open=False)
    target = corridor(position, end, retreat, length, error, inner, outer, clear)
    if error > outer and retreat[2] < 0.99 and position[1] < _FRONT_Y_M:
        target = risen_first(position, target)
    if aside > 0.05:
        target[1] = min(target[1], _FRONT_Y_M - 0.015)
    return Goal(target, euler, open=False)
