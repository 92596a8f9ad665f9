"""From a goal pose to a relative action, through an exact mirror of the environment's own target pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.interfaces import GRIPPER_CLOSE, GRIPPER_OPEN, MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD
from deer_sim.expert.view import View, wrapped

_GAIN = 0.5
"""Share of the remaining way that one step asks for; below 1 the actions fade out instead of stopping dead."""
_STRETCH = 0.8
"""Share of the tool's own error that the goal is moved by, for near the end of its reach the arm stops short."""
_LEAD_M = 0.06
_LEAD_RAD = 0.25
"""The target never runs further ahead of the measured tool than this, so that contact does not wind it up."""


@dataclass(frozen=True)
class Goal:
    """Where the tool shall go: position (3,) in m, euler xyz (3,) in rad, and whether the gripper shall be open."""

    position: np.ndarray
    euler: np.ndarray
    open: bool


def limited(vector: np.ndarray, length: float) -> np.ndarray:
    """The vector, shortened to `length` if it is longer."""
    norm = float(np.linalg.norm(vector))
    return vector if norm <= length else vector * (length / norm)


def _saturated(vector: np.ndarray) -> np.ndarray:
    """Scales a vector into [-1, 1] and keeps its direction."""
    return vector / max(1.0, float(np.abs(vector).max()))


class TargetMirror:
    """The environment adds each relative action to a target pose that it does not show; this keeps the same sum."""

    def __init__(self) -> None:
        self.position = np.zeros(3)
        self.euler = np.zeros(3)

    def reset(self, view: View) -> None:
        """At a reset the target is where the tool is."""
        self.position, self.euler = view.position.copy(), view.euler.copy()

    def advance(self, action: np.ndarray) -> None:
        """Accounts for an action (7,) that was executed."""
        moved = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        self.position = self.position + moved[:3] * MAX_POSITION_STEP_M
        self.euler = self.euler + moved[3:6] * MAX_ROTATION_STEP_RAD

    def action_to(self, goal: Goal, view: View) -> np.ndarray:
        """The action (7,) float32 in [-1, 1] that takes the target towards the goal, but not far ahead of the tool."""
        position = view.position + limited((1.0 + _STRETCH) * (goal.position - view.position), _LEAD_M)
        euler = view.euler + limited(wrapped(goal.euler - view.euler), _LEAD_RAD)
        action = np.empty(7, np.float32)
        action[:3] = _saturated(_GAIN / MAX_POSITION_STEP_M * (position - self.position))
        action[3:6] = _saturated(_GAIN / MAX_ROTATION_STEP_RAD * wrapped(euler - self.euler))
        action[6] = GRIPPER_OPEN if goal.open else GRIPPER_CLOSE
        return action
