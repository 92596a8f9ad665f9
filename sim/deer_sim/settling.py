"""What a reset puts on a table hovers a hair above it: a few control steps of no motion until it lies there.

Many tasks ask what a block touched when they began.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deer_sim.environment import Environment, TimeStep

SETTLE_STEPS = 2
"""Blocks fall the last fraction of a millimetre in them."""


def settled(
    environment: Environment, robot_obs: np.ndarray, executed: Callable[[np.ndarray], None] | None = None
) -> TimeStep:
    """The state after `SETTLE_STEPS` control steps without motion, without pictures.

    Args:
        environment: just reset.
        robot_obs: (15,) of the start, whose last number is the gripper's command, which is kept.
        executed: told each action (7,).
    """
    idle = np.append(np.zeros(6), robot_obs[14])
    for _ in range(SETTLE_STEPS):
        now = environment.step(idle, look=False)
        if executed is not None:
            executed(idle)
    return now
