"""What the expert would do in the next control steps, found by letting it try; then everything is as before."""

from __future__ import annotations

import copy

import numpy as np

from deer_sim.engine.environment import TableEnvironment
from deer_sim.environment import TimeStep
from deer_sim.expert import Expert


def foreseen(environment: TableEnvironment, expert: Expert, now: TimeStep, horizon: int) -> np.ndarray:
    """The expert's actions (horizon, 7) float32 from the state `now` on, which the environment is in."""
    trying = copy.deepcopy(expert)
    actions = [trying.action(now)]
    with environment.trial():
        while len(actions) < horizon:
            now = environment.step(actions[-1], look=False)
            trying.executed(actions[-1])
            actions.append(trying.action(now))
    return np.stack(actions)
