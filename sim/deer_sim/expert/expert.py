"""The scripted expert: says for any state of a scene what to do next for a task."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.environment import TimeStep
from deer_sim.expert import fixtures
from deer_sim.expert.motion import Goal, TargetMirror
from deer_sim.expert.view import View
from deer_sim.playtable.scene import Scene, find_scene

Maneuver = Callable[[View, Scene], Goal]

_FIXTURE_TASKS: dict[str, Maneuver] = {
    "open_drawer": fixtures.open_drawer,
    "close_drawer": fixtures.close_drawer,
    "move_slider_left": lambda view, scene: fixtures.move_slider(view, scene, left=True),
    "move_slider_right": lambda view, scene: fixtures.move_slider(view, scene, left=False),
    "turn_on_led": lambda view, scene: fixtures.press_button(view, scene, lit=True),
    "turn_off_led": lambda view, scene: fixtures.press_button(view, scene, lit=False),
    "turn_on_lightbulb": lambda view, scene: fixtures.flip_switch(view, scene, up=True),
    "turn_off_lightbulb": lambda view, scene: fixtures.flip_switch(view, scene, up=False),
}


class Expert:
    """Labels any state of one scene. It sees robot_obs and scene_obs, never the simulator's ground truth."""

    def __init__(self, scene: str) -> None:
        """Raises SimulatorError if there is no such scene."""
        self._scene = find_scene(scene)
        self._mirror = TargetMirror()
        self._task: str | None = None

    def reset(self, step: TimeStep) -> None:
        """To be called with what the environment's reset returned."""
        self._mirror.reset(self._view(step))
        self._task = None

    def begin(self, task: str, step: TimeStep) -> None:
        """Starts a task in the current state; an episode may have several in a row."""
        if task not in _FIXTURE_TASKS:
            raise ConfigError(f"the expert knows no task {task!r}; allowed are {', '.join(_FIXTURE_TASKS)}")
        self._task = task

    def action(self, step: TimeStep) -> np.ndarray:
        """The relative action (7,) float32 in [-1, 1] for this state; it changes nothing."""
        if self._task is None:
            raise ConfigError("the expert has no task; call reset and then begin first")
        view = self._view(step)
        return self._mirror.action_to(_FIXTURE_TASKS[self._task](view, self._scene), view)

    def executed(self, action: np.ndarray) -> None:
        """To be told of every action that the environment has run, whoever chose it."""
        self._mirror.advance(action)

    def _view(self, step: TimeStep) -> View:
        return View.of(step, self._scene.block_order)
