"""The scripted expert: says for any state of a scene what to do next for a task."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.environment import BLOCKS, TimeStep
from deer_sim.expert import blocks, fixtures
from deer_sim.expert.grasp import between_fingers
from deer_sim.expert.motion import Goal, TargetMirror
from deer_sim.expert.view import View
from deer_sim.playtable.scene import Scene, find_scene
from deer_sim.tasks import FIXTURE_TASKS

Maneuver = Callable[[View, Scene, View, str], Goal]
"""Goal from what is seen now, the scene, what was seen when the task began, and the block that the task is about."""


def _fixture_maneuvers() -> dict[str, Maneuver]:
    return {
        "open_drawer": lambda view, scene, start, block: fixtures.open_drawer(view, scene),
        "close_drawer": lambda view, scene, start, block: fixtures.close_drawer(view, scene),
        "move_slider_left": lambda view, scene, start, block: fixtures.move_slider(view, scene, left=True),
        "move_slider_right": lambda view, scene, start, block: fixtures.move_slider(view, scene, left=False),
        "turn_on_led": lambda view, scene, start, block: fixtures.press_button(view, scene, lit=True),
        "turn_off_led": lambda view, scene, start, block: fixtures.press_button(view, scene, lit=False),
        "turn_on_lightbulb": lambda view, scene, start, block: fixtures.flip_switch(view, scene, up=True),
        "turn_off_lightbulb": lambda view, scene, start, block: fixtures.flip_switch(view, scene, up=False),
    }


def _lift() -> Maneuver:
    return lambda view, scene, start, block: blocks.lift(view, scene, block)


def _push(sign: int) -> Maneuver:
    return lambda view, scene, start, block: blocks.push(view, scene, block, start, sign)


def _rotate(sign: int) -> Maneuver:
    return lambda view, scene, start, block: blocks.rotate(view, scene, block, start, sign)


def _block_maneuvers() -> dict[str, Maneuver]:
    table: dict[str, Maneuver] = {
        "place_in_slider": lambda view, scene, start, block: blocks.place_in_cabinet(view, scene, block),
        "place_in_drawer": lambda view, scene, start, block: blocks.place_in_drawer(view, scene, block),
        "stack_block": lambda view, scene, start, block: blocks.stack(view, scene, block),
        "unstack_block": lambda view, scene, start, block: blocks.unstack(view, scene, block),
        "push_into_drawer": lambda view, scene, start, block: blocks.push_into_drawer(view, scene, block),
    }
    for colour in BLOCKS:
        table.update({f"lift_{colour}_block_{place}": _lift() for place in ("table", "slider", "drawer")})
        for side, sign in (("right", 1), ("left", -1)):
            table[f"push_{colour}_block_{side}"] = _push(sign)
            table[f"rotate_{colour}_block_{side}"] = _rotate(-sign)
    return table


_MANEUVERS: dict[str, Maneuver] = _fixture_maneuvers() | _block_maneuvers()


def block_of(task: str, view: View, scene: Scene) -> str:
    """The block that a task is about when it begins in the state `view`."""
    for colour in BLOCKS:
        if f"_{colour}_" in task:
            return colour
    if task == "unstack_block":
        return blocks.upper_block(view) or blocks.nearest_block(view)
    return blocks.loose_block(view, scene) if task == "push_into_drawer" else blocks.nearest_block(view)


def _about(task: str, colour: str, block: str) -> bool:
    """Whether a task is about a block that is in the hand when it begins, `block` being the one that it is about."""
    return colour == block and task not in FIXTURE_TASKS


class Expert:
    """Labels any state of one scene. It sees robot_obs and scene_obs, never the simulator's ground truth."""

    def __init__(self, scene: str) -> None:
        """Raises SimulatorError if there is no such scene."""
        self._scene = find_scene(scene)
        self._mirror = TargetMirror()
        self._task: str | None = None
        self._start: View | None = None
        self._block = ""
        self._to_leave: list[str] = []

    def reset(self, step: TimeStep) -> None:
        """To be called with what the environment's reset returned."""
        self._mirror.reset(self._view(step))
        self._task = None

    def begin(self, task: str, step: TimeStep) -> None:
        """Starts a task in the current state; an episode may have several in a row."""
        if task not in _MANEUVERS:
            raise ConfigError(f"the expert knows no task {task!r}; allowed are {', '.join(_MANEUVERS)}")
        self._task = task
        self._start = self._view(step)
        self._block = block_of(task, self._start, self._scene)
        self._to_leave = [
            colour
            for colour in BLOCKS
            if not (_about(task, colour, self._block) and between_fingers(self._start, colour))
        ]

    def action(self, step: TimeStep) -> np.ndarray:
        """The relative action (7,) float32 in [-1, 1] for this state; asked again, it gives the same."""
        if self._task is None or self._start is None:
            raise ConfigError("the expert has no task; call reset and then begin first")
        view = self._view(step)
        self._to_leave = [colour for colour in self._to_leave if not blocks.clear_of(view, colour)]
        if self._to_leave:
            return self._mirror.action_to(blocks.leave(view, self._scene, self._to_leave[0]), view)
        goal = _MANEUVERS[self._task](view, self._scene, self._start, self._block)
        return self._mirror.action_to(goal, view)

    def executed(self, action: np.ndarray) -> None:
        """To be told of every action that the environment has run, whoever chose it."""
        self._mirror.advance(action)

    def lead_m(self, step: TimeStep) -> float:
        """How far the environment's target position is from the tool: more than a few centimetres only in a jam."""
        return float(np.linalg.norm(self._mirror.position - self._view(step).position))

    def _view(self, step: TimeStep) -> View:
        return View.of(step, self._scene.block_order)
