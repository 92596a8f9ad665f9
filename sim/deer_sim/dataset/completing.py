"""What CALVIN's layout holds but other sources don't tell: made from what they do tell, or marked as unknown."""

from __future__ import annotations

import re
from functools import cache, partial

import numpy as np

from deer_policies.interfaces import MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD
from deer_sim import instructions
from deer_sim.dataset.layout import UNKNOWABLE, VECTORS
from deer_sim.tasks import TASKS

FULL_SCALE = np.repeat([MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD], 3)
"""What a relative action of 1 moves: metres and radians."""


def absolute_actions(robot_obs: np.ndarray, rel_actions: np.ndarray) -> np.ndarray:
    """Pose of the step after and gripper command, as CALVIN records them; for the last step, where the action leads.

    Args:
        robot_obs: (steps, 15).
        rel_actions: (steps, 7).
    """
    last = robot_obs[-1:, :6] + rel_actions[-1:, :6] * FULL_SCALE
    last[:, 3:] = (last[:, 3:] + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([np.concatenate([robot_obs[1:, :6], last]), rel_actions[:, 6:]], axis=1)


def unknown_scene(steps: int) -> np.ndarray:
    """The state of a scene that nobody has measured, (steps, 24): NaN."""
    return np.full((steps, VECTORS[UNKNOWABLE]), np.nan)


def task_of(instruction: str) -> str:
    """The task with this wording, or else a name made of its words."""
    text = " ".join(instruction.lower().split())
    return _tasks_by_wording().get(text) or re.sub(r"\W+", "_", text).strip("_")


@cache
def _tasks_by_wording() -> dict[str, str]:
    kinds = (instructions.training, partial(instructions.validation, group=instructions.EVERY))
    return {text.lower(): task for kind in kinds for task in TASKS for text in kind(task)}
