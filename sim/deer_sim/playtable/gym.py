"""PlayTable for Gymnasium: one task per episode, reward 1 when it is solved; `import deer_sim` registers it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from deer_policies.errors import ConfigError, SimulatorError
from deer_policies.interfaces import (
    ACTION_SIZE,
    CONTROL_RATE_HZ,
    GRIPPER_SHAPE,
    PROPRIOCEPTION_SIZE,
    STATIC_SHAPE,
    checked_instruction,
)
from deer_sim import instructions
from deer_sim.engine.environment import SCENE_OBS_SIZE
from deer_sim.environment import TimeStep
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import sample_start
from deer_sim.tasks import TASKS, solved

_BOUND = 100.0
"""Generous bound of positions (m) and angles (rad), so that spaces are finite."""
_GRASPED = ("place_in_slider", "place_in_drawer", "stack_block")
_DRAWN = tuple(task for task in TASKS if task not in _GRASPED)
_OPTIONS = ("task", "instruction", "robot_obs", "scene_obs")

Observation = dict[str, Any]


class PlayTableGym(gymnasium.Env[Observation, np.ndarray]):
    """One task of CALVIN's 34 in one scene.

    Observation: `rgb_static` (200, 200, 3) and `rgb_gripper` (84, 84, 3) uint8, `robot_obs` (15,) and `scene_obs` (24,)
    float64. Action: (7,) float32 in [-1, 1], see `deer_policies.interfaces.Action`; a positive gripper value opens.
    `info` names the task, a wording of it (`instruction`), and whether it is solved (`success`).

    `reset(options=...)` takes `task` and `instruction` (else drawn), `robot_obs` and `scene_obs` (else a start from
    which the task can be done is drawn). The tasks that begin with a block in the hand are drawn only when a state is
    given.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(CONTROL_RATE_HZ)}  # noqa: RUF012

    def __init__(self, scene: str = "D", task: str | None = None, render_mode: str | None = None) -> None:
        """`task` is the one of every episode, unless a reset names another; None draws one each time.

        Raises:
            SimulatorError: if the scene is unknown or pybullet is not installed.
            ConfigError: if the task or the render mode is unknown.
        """
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"unknown render_mode {render_mode!r}; allowed: None, 'rgb_array'")
        self.render_mode = render_mode
        self._scene = scene
        self._task_of_all = None if task is None else _checked_task(task)
        self._environment = PlayTable(scene)
        self.observation_space = spaces.Dict(
            {
                "rgb_static": spaces.Box(0, 255, STATIC_SHAPE, np.uint8),
                "rgb_gripper": spaces.Box(0, 255, GRIPPER_SHAPE, np.uint8),
                "robot_obs": spaces.Box(-_BOUND, _BOUND, (PROPRIOCEPTION_SIZE,), np.float64),
                "scene_obs": spaces.Box(-_BOUND, _BOUND, (SCENE_OBS_SIZE,), np.float64),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._task, self._instruction = "", ""
        self._first: TimeStep | None = None
        self._now: TimeStep | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode; see the class for the options.

        Raises:
            ConfigError: if an option is unknown or malformed.
        """
        super().reset(seed=seed)
        given = dict(options or {})
        unknown = set(given) - set(_OPTIONS)
        if unknown:
            raise ConfigError(f"unknown reset options {sorted(unknown)}; allowed: {', '.join(_OPTIONS)}")
        stated = "robot_obs" in given or "scene_obs" in given
        task = given.get("task", self._task_of_all)
        if task is None:
            task = str(self.np_random.choice(TASKS if stated else _DRAWN))
        self._task = _checked_task(task)
        if self._task in _GRASPED and not stated:
            raise SimulatorError(
                f"{self._task} begins with a block in the hand; give robot_obs and scene_obs of such a state, "
                f"or choose another task: {', '.join(_DRAWN)}"
            )
        wordings = instructions.training(self._task)
        drawn = str(self.np_random.choice(wordings))
        self._instruction = checked_instruction(given.get("instruction", drawn))
        robot_obs, scene_obs = given.get("robot_obs"), given.get("scene_obs")
        if not stated:
            start = sample_start(self._task, self._scene, self.np_random)
            robot_obs, scene_obs = start.robot_obs, start.scene_obs
        block_seed = int(self.np_random.integers(2**31))
        self._now = self._first = self._environment.reset(block_seed, robot_obs, scene_obs)
        return _observed(self._now), self._info(success=False)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step; raises ConfigError, and nothing moves, if the action is misshapen or not finite."""
        if self._first is None:
            raise SimulatorError("step was called before reset; call reset first")
        self._now = self._environment.step(action)
        success = bool(solved(self._first.state, self._now.state, (self._task,)))
        return _observed(self._now), float(success), success, False, self._info(success)

    def render(self) -> np.ndarray | None:
        """The static camera's picture (200, 200, 3) uint8, or None without a render mode or before reset."""
        if self.render_mode is None or self._now is None:
            return None
        return self._now.rgb_static

    def close(self) -> None:
        """Frees the simulator."""
        self._environment.close()

    def _info(self, success: bool) -> dict[str, Any]:
        return {"task": self._task, "instruction": self._instruction, "success": success}


def _checked_task(task: object) -> str:
    """Returns a task's name, or raises ConfigError."""
    if not isinstance(task, str) or task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; allowed: {', '.join(TASKS)}")
    return task


def _observed(step: TimeStep) -> Observation:
    """A time step as Gymnasium's observation."""
    assert step.rgb_static is not None
    assert step.rgb_gripper is not None
    return {
        "rgb_static": step.rgb_static,
        "rgb_gripper": step.rgb_gripper,
        "robot_obs": np.clip(step.robot_obs, -_BOUND, _BOUND),
        "scene_obs": np.clip(step.scene_obs, -_BOUND, _BOUND),
    }
