"""A policy that runs a real one at every step and moves the tool in a circle instead of what that one says.

So the arm moves steadily whenever a fault comes, while model, exits and times are the real ones. What goes wrong with
it is said by `trouble`, from another thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import (
    GRIPPER_OPEN,
    MAX_POSITION_STEP_M,
    ActionChunk,
    Budget,
    ExitReport,
    Observation,
    Policy,
    PolicyInfo,
    ReduciblePolicy,
)

RADIUS_M, SPEED_M_S = 0.06, 0.1
GAIN = 0.2
"""Share of the distance to the circle that is made up in a step."""
TROUBLES = ("none", "freeze", "raise", "memory")


@dataclass
class _State:
    inner: Any
    start_m: np.ndarray | None = None
    steps: int = 0


class CirclingPolicy:
    """Circles in the horizontal plane, beginning where the tool is, at 0.1 m/s.

    Args:
        policy: the one that runs.

    Raises:
        ConfigError: if it can't do with fewer exits, as running out of memory asks for.
    """

    def __init__(self, policy: Policy) -> None:
        if not isinstance(policy, ReduciblePolicy):
            raise ConfigError(f"policy {policy.info.name} has no exits to give up; choose another one")
        self._policy = policy
        self._trouble = "none"
        self._released = threading.Event()

    @property
    def info(self) -> PolicyInfo:
        """The real policy's."""
        return self._policy.info

    @property
    def budget(self) -> Budget:
        """The real policy's."""
        return self._policy.budget

    def set_budget(self, budget: Budget) -> None:
        """Changes the real policy's."""
        self._policy.set_budget(budget)

    @property
    def exits_in_use(self) -> int:
        """The real policy's."""
        return self._policy.exits_in_use

    def limit_exits(self, exits: int) -> None:
        """Limits the real policy's."""
        self._policy.limit_exits(exits)

    def initial_state(self) -> _State:
        """The circle begins with the first step."""
        return _State(self._policy.initial_state())

    def trouble(self, what: str) -> None:
        """What is wrong from now on; raises ConfigError for what is none of `TROUBLES`.

        freeze: steps do not return until another trouble is set; raise: they raise an error; memory: deeper exits than
        the first are out of memory.
        """
        if what not in TROUBLES:
            raise ConfigError(f"trouble {what[:40]!r} is unknown; there are {', '.join(TROUBLES)}")
        self._trouble = what
        self._released.set()
        self._released = threading.Event()

    def step(self, observation: Observation, state: _State) -> tuple[ActionChunk, _State, ExitReport]:
        """A step of the real policy, and the circle's next actions."""
        if self._trouble == "freeze":
            self._released.wait()
        if self._trouble == "raise":
            raise RuntimeError("a fault was asked for")
        chunk, inner, report = self._policy.step(observation, state.inner)
        if self._trouble == "memory" and report.exit_index > 0:
            raise MemoryError("a fault was asked for: no memory for deeper exits")
        position = np.asarray(observation.proprioception[:3], dtype=np.float64)
        start = position if state.start_m is None else state.start_m
        count = len(chunk.each)
        actions = np.array([self._action(start, position, state.steps + place) for place in range(count)], np.float32)
        return ActionChunk(actions), _State(inner, start, state.steps + count), report

    def _action(self, start: np.ndarray, position: np.ndarray, step: int) -> np.ndarray:
        """Along the circle, and back to it where the tool lags."""
        rate_hz = self.info.rate_hz
        angle = SPEED_M_S / RADIUS_M * step / rate_hz
        wanted = start + RADIUS_M * np.array((np.sin(angle), 1.0 - np.cos(angle), 0.0))
        along = SPEED_M_S / rate_hz * np.array((np.cos(angle), np.sin(angle), 0.0))
        move = np.clip((along + GAIN * (wanted - position)) / MAX_POSITION_STEP_M, -1.0, 1.0)
        return np.array((*move, 0.0, 0.0, 0.0, GRIPPER_OPEN))
