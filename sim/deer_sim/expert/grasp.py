"""Taking a block: which way to turn the gripper, how to get there, when to close, and whether it is held."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_sim.expert.fixtures import BUTTON_Y_M
from deer_sim.expert.motion import Goal
from deer_sim.expert.paths import TRAVEL_Z_M, along_tool, approach, misaligned, outside
from deer_sim.expert.view import View, rotation_of, wrapped
from deer_sim.playtable.scene import SURFACE_Z_M, Scene

_WIDEST_M = 0.065
"""Blocks are taken along edges up to this length; the gripper opens to 0.08."""
_OPEN_M = 0.08
_ABOVE_M = 0.002
_CABINET_ABOVE_M = 0.005
_CABINET_YAW_RAD = 0.25
_CABINET_BACK_M = 0.012
"""In the cabinet the block is taken so far from the fingers' middle, which keeps the hand off the door."""


@dataclass(frozen=True)
class Grip:
    """How to take a block: the tool's lean towards the back (rad), and the best tool yaw (rad) if there is a choice."""

    lean: float = 0.0
    yaw: float = math.pi / 2


def block_half_extent(view: View, scene: Scene, colour: str) -> np.ndarray:
    """Half the size (3,) in m of the box along the world's axes around a block."""
    return np.abs(view.blocks[colour].rotation) @ np.array(scene.block_extent(colour)) / 2


def held(view: View, scene: Scene, colour: str) -> bool:
    """Whether the block is between the closed fingers: they are told to close, a block's edge apart, and around it."""
    pose = view.blocks[colour]
    offset = rotation_of(view.euler).T @ (pose.position - view.position)
    around = abs(offset[1]) < 0.015 and abs(offset[0]) < 0.035 and abs(offset[2]) < 0.03
    return bool(view.closing and around and 0.024 < view.width < 0.062)


def _yaws(view: View, scene: Scene, colour: str) -> list[tuple[float, float]]:
    """Tool yaws (rad) that close along an edge of the block, and that edge's length (m)."""
    pose = view.blocks[colour]
    found: list[tuple[float, float]] = []
    for axis, edge in zip(pose.rotation.T, scene.block_extent(colour), strict=True):
        if abs(axis[2]) < 0.4 and edge < _WIDEST_M:
            yaw = math.atan2(axis[1], axis[0]) + math.pi / 2
            found += [(yaw, edge), (yaw + math.pi, edge)]
    return found


def _blocked(view: View, scene: Scene, colour: str, yaw: float) -> bool:
    """Whether another block or the button is where a finger has to go in."""
    place = view.blocks[colour].position
    obstacles = [
        (pose.position, max(scene.block_extent(other)) / 2) for other, pose in view.blocks.items() if other != colour
    ]
    obstacles.append((np.array([scene.button_x, BUTTON_Y_M, SURFACE_Z_M]), 0.045))
    closing = np.array([math.sin(yaw), -math.cos(yaw)])
    for centre, radius in obstacles:
        if abs(centre[2] - place[2]) < 0.035:
            for finger in (place[:2] - 0.05 * closing, place[:2] + 0.05 * closing):
                if np.linalg.norm(centre[:2] - finger) < 0.015 + radius:
                    return True
    return False


def best_yaw(view: View, scene: Scene, colour: str, grip: Grip) -> tuple[float, float]:
    """Tool yaw (rad) to take a block with, near the preferred one, and the edge length (m) between the fingers."""

    def cost(option: tuple[float, float]) -> float:
        yaw, edge = option
        off = abs(float(wrapped(yaw - grip.yaw))) + 0.2 * abs(float(wrapped(yaw - view.euler[2])))
        return off + (0.3 if edge > 0.05 else 0.0) + (2.0 if _blocked(view, scene, colour, yaw) else 0.0)

    options = _yaws(view, scene, colour)
    if not options:
        return grip.yaw, 0.04
    return min(options, key=cost)


def grasp(view: View, scene: Scene, colour: str, grip: Grip) -> Goal:
    """Opens above the block, goes down around it, and closes."""
    yaw, edge = best_yaw(view, scene, colour, grip)
    if grip.lean:
        # The hand is 0.2 m wide; turned further it would touch the cabinet. The fingers turn the block when they close.
        yaw = math.pi / 2 + float(np.clip(wrapped(yaw - math.pi / 2), -_CABINET_YAW_RAD, _CABINET_YAW_RAD))
    euler = np.array([math.pi, -grip.lean, yaw])
    turn = yaw - math.pi / 2
    draw = along_tool(grip.lean)
    retreat = np.array([-math.sin(turn) * draw[1], math.cos(turn) * draw[1], draw[2]])
    end = view.blocks[colour].position + np.array([0.0, 0.0, _ABOVE_M])
    if grip.lean:
        end = end + np.array([0.0, 0.0, _CABINET_ABOVE_M]) + _CABINET_BACK_M * retreat
    offset = view.position - end
    closing = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    slack = ((_OPEN_M - edge) / 2 - 0.008) * (0.3 if grip.lean else 0.8)
    between = outside(float(offset @ closing), -slack, slack)
    across = float(offset @ np.cross(closing, retreat))
    lateral = math.hypot(between, across)
    error = lateral + misaligned(view, euler) + 2.0 * max(0.0, edge + 0.016 - view.width)
    loose = 0.02 if view.closing else 0.0
    near = lateral < 0.012 + loose and abs(offset[2]) < 0.008 + loose and misaligned(view, euler) < 0.02
    if near and not (view.closing and view.width < 0.02):
        return Goal(end, euler, open=False)
    length = max(0.1, (TRAVEL_Z_M - end[2]) / retreat[2])
    goal = approach(view, end, euler, retreat, length, error, inner=0.008, outer=0.03, clear=0.07)
    return Goal(goal.position, goal.euler, open=True)
