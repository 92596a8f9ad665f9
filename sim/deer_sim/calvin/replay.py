"""Replays a recorded trajectory in an environment, and says how far it gets away from the recording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from deer_sim.calvin.recording import Recording
from deer_sim.environment import Environment, TimeStep
from deer_sim.tasks import solved

STATE_TOLERANCE = 1e-4
"""Largest deviation of any entry of robot_obs and scene_obs, in m and rad."""
PICTURE_TOLERANCE = 1.0
"""Largest mean deviation of a picture, of 255."""
TOLERANCES = (
    f"states within {STATE_TOLERANCE:g}, the same tasks solved at every step, "
    f"pictures within {PICTURE_TOLERANCE:g} of 255 on average"
)
_ROBOT_ANGLES = (3, 4, 5)
_SCENE_ANGLES = (9, 10, 11, 15, 16, 17, 21, 22, 23)


class Stage(Environment, Protocol):
    """An environment that draws pictures when asked."""

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """What the static and the gripper camera see now, each (rows, columns, 3) uint8."""
        ...


@dataclass(frozen=True)
class Deviation:
    """How far a replay got away from its recording.

    Attributes:
        robot_obs, scene_obs: largest absolute deviation of any entry at any step; angles modulo a turn.
        solved_step: the first step (from 0) after which other tasks are solved, or None.
        picture_mean, picture_max: largest mean deviation of a picture and of any of its values, of 255; NaN if the
            recording has no pictures, infinite if they differ in size.
    """

    robot_obs: float
    scene_obs: float
    solved_step: int | None
    picture_mean: float
    picture_max: float

    @property
    def holds(self) -> bool:
        """Whether the replay stays within the tolerances of this module."""
        within = self.robot_obs <= STATE_TOLERANCE and self.scene_obs <= STATE_TOLERANCE
        return within and self.solved_step is None and not self.picture_mean > PICTURE_TOLERANCE

    def __str__(self) -> str:
        solved_at = "at every step" if self.solved_step is None else f"but not at step {self.solved_step}"
        pictures = f"pictures by {self.picture_mean:.3g} on average and at most {self.picture_max:.3g} of 255"
        return (
            f"{'holds' if self.holds else 'DIFFERS'}: robot_obs by {self.robot_obs:.2g}, scene_obs by "
            f"{self.scene_obs:.2g}, the same tasks solved {solved_at}, "
            f"{'no pictures' if np.isnan(self.picture_mean) else pictures}"
        )


def replay(recording: Recording, environment: Stage) -> Deviation:
    """Runs the recorded actions; the environment must not clip them."""
    wanted = dict(
        zip(recording.rgb_step.tolist(), zip(recording.rgb_static, recording.rgb_gripper, strict=True), strict=True)
    )
    steps: list[TimeStep] = []
    pictures = [(np.nan, np.nan)]
    for number in range(len(recording.actions) + 1):
        if number == 0:
            steps.append(environment.reset(None, recording.robot_start, recording.scene_start))
        else:
            steps.append(environment.step(recording.actions[number - 1]))
        if number in wanted:
            drawn = environment.pictures()
            pictures += [_picture_deviation(*pair) for pair in zip(drawn, wanted[number], strict=True)]
    other = [
        number
        for number, names in enumerate(recording.solved)
        if solved(steps[recording.judged_from[number]].state, steps[number + 1].state) != names
    ]
    means, maxima = zip(*pictures, strict=True)
    return Deviation(
        robot_obs=_deviation((step.robot_obs for step in steps), recording.robot_obs, _ROBOT_ANGLES),
        scene_obs=_deviation((step.scene_obs for step in steps), recording.scene_obs, _SCENE_ANGLES),
        solved_step=other[0] if other else None,
        picture_mean=float(np.fmax.reduce(means)),
        picture_max=float(np.fmax.reduce(maxima)),
    )


def record(
    environment: Stage,
    scene: str,
    robot_start: np.ndarray,
    scene_start: np.ndarray,
    actions: np.ndarray,
    picture_steps: Iterable[int] = (),
) -> Recording:
    """Runs actions (T, 7) from a start and records them; pictures are drawn at `picture_steps` (0 is the reset)."""
    chosen = sorted(set(picture_steps))
    steps: list[TimeStep] = []
    pictures: list[tuple[np.ndarray, np.ndarray]] = []
    for number in range(len(actions) + 1):
        steps.append(
            environment.step(actions[number - 1]) if number else environment.reset(None, robot_start, scene_start)
        )
        if number in chosen:
            pictures.append(environment.pictures())
    return Recording(
        scene=scene,
        robot_start=robot_start,
        scene_start=scene_start,
        actions=actions,
        robot_obs=np.array([step.robot_obs for step in steps]),
        scene_obs=np.array([step.scene_obs for step in steps]),
        solved=tuple(solved(steps[0].state, step.state) for step in steps[1:]),
        judged_from=(0,) * len(actions),
        rgb_static=np.array([static for static, _ in pictures], np.uint8).reshape(len(pictures), *_shape(pictures, 0)),
        rgb_gripper=np.array([gripper for _, gripper in pictures], np.uint8).reshape(
            len(pictures), *_shape(pictures, 1)
        ),
        rgb_step=np.array(chosen, np.int64),
    )


def random_walk(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random actions (steps, 7) that sink, so that they touch things; the gripper opens and closes at times."""
    actions = np.zeros((steps, 7))
    for before, now in pairwise(actions):
        now[:6] = np.clip(0.7 * before[:6] + 0.5 * rng.normal(size=6) + (0, 0, -0.12, 0, 0, 0), -1, 1)
    actions[:, 6] = np.where(np.cumsum(rng.random(steps) < 0.05) % 2, -1.0, 1.0)
    return actions


def _shape(pictures: list[tuple[np.ndarray, np.ndarray]], camera: int) -> tuple[int, ...]:
    """Shape of a camera's pictures, or an empty one."""
    return pictures[0][camera].shape if pictures else (0, 0, 3)


def _deviation(found: Iterable[np.ndarray], wanted: np.ndarray, angles: tuple[int, ...]) -> float:
    """Largest absolute difference of rows, with the columns `angles` modulo a turn."""
    difference = np.array(list(found)) - wanted
    columns = list(angles)
    turned = np.abs(difference[:, columns]) > np.pi
    difference[:, columns] -= np.where(turned, 2 * np.pi * np.sign(difference[:, columns]), 0.0)
    return float(np.abs(difference).max())


def _picture_deviation(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Mean and largest absolute difference of two pictures."""
    if found.shape != wanted.shape:
        return np.inf, np.inf
    difference = np.abs(found.astype(np.int16) - wanted)
    return float(difference.mean()), float(difference.max())
