"""Taking a block: getting there with the gripper open, closing it, and whether the block is held."""

from __future__ import annotations

import math

import numpy as np

from deer_sim.expert.grip import grip
from deer_sim.expert.motion import Goal
from deer_sim.expert.paths import TRAVEL_Z_M, approach, misaligned, outside
from deer_sim.expert.view import View, rotation_of
from deer_sim.playtable.scene import Scene

_OPEN_M = 0.08
"""Width of the open gripper."""


def block_half_extent(view: View, scene: Scene, colour: str) -> np.ndarray:
    """Half the size (3,) in m of the box along the world's axes around a block."""
    return np.abs(view.blocks[colour].rotation) @ np.array(scene.block_extent(colour)) / 2


def between_fingers(view: View, colour: str) -> bool:
    """Whether the block is where the fingers meet, be they closed or open."""
    offset = rotation_of(view.euler).T @ (view.blocks[colour].position - view.position)
    return bool(abs(offset[1]) < 0.015 and abs(offset[0]) < 0.035 and abs(offset[2]) < 0.03)


def held(view: View, scene: Scene, colour: str) -> bool:
    """Whether the block is between the closed fingers: they are told to close, and a block's edge apart."""
    return view.closing and between_fingers(view, colour) and 0.024 < view.width < 0.062


def grasp(view: View, scene: Scene, colour: str, preferred_yaw: float = math.pi / 2) -> Goal:
    """Opens above (in the cabinet in front of) the block, goes in around it, and closes."""
    best = grip(view, scene, colour, preferred_yaw)
    offset = view.position - best.position
    yaw = best.euler[2]
    closing = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    slack = ((_OPEN_M - best.edge) / 2 - 0.008) * (0.3 if best.tight else 0.8)
    between = outside(float(offset @ closing), -slack, slack)
    lateral = math.hypot(between, float(offset @ np.cross(closing, best.retreat)))
    turned = misaligned(view, best.euler)
    loose = 0.02 if view.closing else 0.0
    near = lateral < 0.012 + loose and abs(offset[2]) < 0.008 + loose and turned < 0.02
    if near and not (view.closing and view.width < 0.02):
        return Goal(best.position, best.euler, open=False)
    error = lateral + turned + 2.0 * max(0.0, best.edge + 0.016 - view.width)
    length = max(0.1, (TRAVEL_Z_M - best.position[2]) / best.retreat[2])
    goal = approach(view, best.position, best.euler, best.retreat, length, error, inner=0.008, outer=0.03, clear=0.07)
    return Goal(goal.position, goal.euler, open=True)
