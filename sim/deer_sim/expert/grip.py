"""How a block is best taken at the place where it lies: the gripper's turn and lean, and what must be kept clear of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_sim.expert.fixtures import BUTTON_Y_M, DOOR_HANDLE_X_M
from deer_sim.expert.paths import along_tool, beyond_reach, ramp
from deer_sim.expert.view import View, wrapped
from deer_sim.playtable.scene import SURFACE_Z_M, Scene

_WIDEST_M = 0.065
"""Blocks are taken along edges up to this length; the gripper opens to 0.08."""
_HAND_HALF_M, _HANDLE_FRONT_Y_M = 0.1, -0.035
_LEAN_RAD = 0.35
"""Lean towards the back where the hand would touch the door's handle, or could not reach upright."""


@dataclass(frozen=True)
class Grip:
    """How to take a block.

    Attributes:
        position: of the tool centre point (3,) when the fingers close.
        euler: of the tool (3,).
        retreat: unit vector (3,) along which the tool goes in and out.
        edge: length in m of the block's edge between the fingers.
        tight: whether there is little room for the fingers beside the block.
    """

    position: np.ndarray
    euler: np.ndarray
    retreat: np.ndarray
    edge: float
    tight: bool


def in_cabinet(view: View, colour: str) -> bool:
    """Whether a block is behind the sliding door's plane."""
    position = view.blocks[colour].position
    return bool(position[1] > 0.025 and 0.43 < position[2] < 0.62)


def grip(view: View, scene: Scene, colour: str, preferred_yaw: float = math.pi / 2) -> Grip:
    """How to take a block; `preferred_yaw` (rad) of the tool counts where there is a choice."""
    place = view.blocks[colour].position
    yaw, edge = _best_yaw(view, scene, colour, preferred_yaw)
    handle_x = scene.slider_x + DOOR_HANDLE_X_M - view.slider
    inside = in_cabinet(view, colour)
    at_handle = not inside and abs(place[0] - handle_x) < 0.085 and place[1] > -0.07
    shift = np.array([0.0, 0.0, 0.002])
    lean = _LEAN_RAD * beyond_reach(place)
    if inside:
        # As far over as the arm can fold there, and by the block's front: this keeps the hand off the door.
        lean = 0.8 + 0.25 * ramp(float(place[0]), -0.2, -0.08)
        shift = np.array([0.0, -0.0095, 0.0145])
    elif at_handle:
        lean, shift = _LEAN_RAD, np.array([0.0, -0.012, 0.005])
    elif lean:
        shift[2] += 0.003
    if inside or at_handle:
        # The hand is 0.2 m wide; turned further it would touch the cabinet. The fingers turn the block when they close.
        limit = 0.25 if inside else 0.12
        yaw = math.pi / 2 + float(np.clip(wrapped(yaw - math.pi / 2), -limit, limit))
    turn, draw = yaw - math.pi / 2, along_tool(lean)
    retreat = np.array([-math.sin(turn) * draw[1], math.cos(turn) * draw[1], draw[2]])
    return Grip(place + shift, np.array([math.pi, -lean, yaw]), retreat, edge, inside or at_handle)


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
    """Whether another block or the button is where a finger has to go in, or the door's handle where the hand does."""
    place = view.blocks[colour].position
    handle_x = scene.slider_x + DOOR_HANDLE_X_M - view.slider
    if abs(place[0] - handle_x) < 0.07 and place[1] + _HAND_HALF_M * abs(math.cos(yaw)) > _HANDLE_FRONT_Y_M:
        return True
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


def _best_yaw(view: View, scene: Scene, colour: str, preferred: float) -> tuple[float, float]:
    """Tool yaw (rad) to take a block with, near the preferred one, and the edge length (m) between the fingers."""

    def cost(option: tuple[float, float]) -> float:
        yaw, edge = option
        off = abs(float(wrapped(yaw - preferred))) + 0.2 * abs(float(wrapped(yaw - view.euler[2])))
        return off + (0.3 if edge > 0.05 else 0.0) + (2.0 if _blocked(view, scene, colour, yaw) else 0.0)

    options = _yaws(view, scene, colour)
    if not options:
        return preferred, 0.04
    return min(options, key=cost)
