"""Makes episodes in worker processes: demonstrations, corrections of a policy, or a policy that acts by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.deer.config import DeerConfig
from deer_policies.deer.exits import ThresholdRule
from deer_policies.errors import SimulatorError
from deer_policies.training.episodes import Episode, save_episode
from deer_sim.chained_starts import chained_start
from deer_sim.chunks import chunks
from deer_sim.collection import Disturbance, begin_at, collect_episode
from deer_sim.collection import Episode as Recorded
from deer_sim.correction import correct_episode
from deer_sim.engine.environment import TableEnvironment
from deer_sim.environment import TimeStep
from deer_sim.environments import make_environment, split_name
from deer_sim.expert import Expert
from deer_sim.landmarks import Landmarks
from deer_sim.playtable.scene import find_scene
from deer_sim.scene_values import scene_values
from deer_sim.starts import Start, sample_start
from deer_sim.tasks import TASKS
from deer_sim.unaided import unaided_episode
from deer_sim.workers import worker_pool

logger = logging.getLogger(__name__)

CHAINED_SHARE = 0.6
"""Share of the episodes that begin where other tasks have left the arm and the table."""
ATTEMPTS = 5
"""Starts that are tried for one episode until the expert can do its task."""


@dataclass(frozen=True)
class EpisodePlan:
    """One episode to make; all that happens in it follows from these values and the acting policy."""

    path: Path
    environment: str
    task: str
    seed: int

    @property
    def scene(self) -> str:
        """Letter of the environment's scene."""
        return split_name(self.environment)[1]

    def rng(self) -> np.random.Generator:
        """What all random choices of the episode are drawn from; the wording comes first."""
        return np.random.default_rng([self.seed, TASKS.index(self.task), ord(self.scene)])

    def wording(self, wordings: Sequence[str]) -> str:
        """The instruction that is given."""
        return wordings[int(self.rng().integers(len(wordings)))]


@dataclass(frozen=True)
class Unaided:
    """A policy acts by itself: the exits that it takes, and the control steps after which it has failed."""

    rule: ThresholdRule
    max_steps: int


def plan_round(
    folder: Path,
    scenes: tuple[str, ...],
    tasks: tuple[str, ...],
    count: int,
    seed: int,
    emphasis: Mapping[str, int] | None = None,
) -> list[EpisodePlan]:
    """Episodes of a round.

    Args:
        folder: for their files.
        scenes: letters of play tables, or such as 'calvin:D'.
        tasks: in each scene.
        count: for each task and scene.
        seed: of all of them.
        emphasis: by task: how many times as many it gets.
    """
    counts = {task: count * (emphasis or {}).get(task, 1) for task in tasks}
    return [
        EpisodePlan(
            folder / f"{scene.replace(':', '-')}-{task}-{index:05d}.npz",
            scene if ":" in scene else f"playtable:{scene}",
            task,
            seed * 1_000_000 + index,
        )
        for index in range(max(counts.values(), default=0))
        for scene in scenes
        for task in tasks
        if index < counts[task]
    ]


def make_episodes(
    plans: list[EpisodePlan],
    config: DeerConfig,
    policy: Path | None,
    workers: int,
    instructions: str,
    unaided: Unaided | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Writes the episodes that are not there yet.

    Args:
        plans: what to make.
        config: of the policy that will be trained.
        policy: checkpoint of the policy that acts; None lets the expert act, with random pushes.
        workers: processes.
        instructions: 'training' or 'validation' wordings.
        unaided: how the policy acts by itself; None draws an exit at every step, and the expert corrects.
        stop: once it is set, episodes that have not begun are left out.
    """
    missing = [plan for plan in plans if not plan.path.exists()]
    if not missing:
        return
    started = reported = time.monotonic()
    arguments = (config, policy, instructions, unaided)
    with worker_pool(workers, _start_worker, arguments) as pool:
        futures = [pool.submit(_make_episode, plan) for plan in missing]
        solved = 0
        for count, future in enumerate(as_completed(futures), 1):
            solved += future.result()
            if stop is not None and stop.is_set():
                return
            now = time.monotonic()
            if now - reported > 10.0 or count == len(missing):
                reported = now
                left_s = (now - started) / count * (len(missing) - count)
                logger.info(
                    "%s: episode %d/%d, %.0f %% solved, %.0f s left",
                    missing[0].path.parent.name,
                    count,
                    len(missing),
                    100 * solved / count,
                    left_s,
                )


_worker: dict[str, Any] = {}


def _start_worker(config: DeerConfig, policy: Path | None, instructions: str, unaided: Unaided | None) -> None:
    import torch

    torch.set_num_threads(1)
    _worker.update(config=config, instructions=instructions, policy=None, unaided=unaided, environments={})
    if policy is not None:
        from deer_policies.deer.checkpoint import load_policy

        _worker["policy"] = load_policy(policy)


def _make_episode(plan: EpisodePlan) -> bool:
    from deer_sim import instructions

    environments = _worker["environments"]
    if plan.environment not in environments:
        table = make_environment(plan.environment)
        assert isinstance(table, TableEnvironment), "our engine runs every scene"
        environments[plan.environment] = table, Landmarks(find_scene(plan.scene), table.lenses())
    (environment, landmarks), expert = environments[plan.environment], Expert(plan.scene)
    rng = plan.rng()
    wordings = getattr(instructions, _worker["instructions"])(plan.task)
    instruction = wordings[rng.integers(len(wordings))]
    for _ in range(ATTEMPTS):
        first, reached = begin_at(environment, expert, _start(plan, rng), int(rng.integers(2**31)))
        if not reached:
            continue
        made = _played(environment, expert, plan.task, instruction, first, rng)
        # What the expert can't do is not shown; a policy's failures are what there is to learn from.
        if made.success or _worker["policy"] is not None:
            save_episode(plan.path, _for_training(made, plan.scene, landmarks, tuple(wordings)))
            return made.success
    raise SimulatorError(
        f"the expert failed {plan.task} in scene {plan.scene} from {ATTEMPTS} starts of seed {plan.seed}; try another"
    )


def _start(plan: EpisodePlan, rng: np.random.Generator) -> Start:
    if rng.random() < CHAINED_SHARE:
        return chained_start(plan.task, plan.scene, TASKS, rng)
    return sample_start(plan.task, plan.scene, rng)


def _played(
    environment: TableEnvironment,
    expert: Expert,
    task: str,
    instruction: str,
    first: TimeStep,
    rng: np.random.Generator,
) -> Recorded:
    """The expert, the policy with the expert's corrections, or the policy alone does the task."""
    from deer_policies.training.exit_sampling import RandomExitRule

    policy, unaided = _worker["policy"], _worker["unaided"]
    if policy is None:
        horizon = _worker["config"].head.horizon
        return collect_episode(environment, expert, task, instruction, first, rng, Disturbance(), look_every=horizon)
    if unaided is not None:
        policy.set_exit_rule(unaided.rule)
        return unaided_episode(environment, policy, task, instruction, first, unaided.max_steps)
    policy.set_exit_rule(RandomExitRule(len(policy.info.exit_layers), rng))
    return correct_episode(environment, expert, policy, task, instruction, first, rng)


def _for_training(made: Recorded, scene: str, landmarks: Landmarks, wordings: tuple[str, ...]) -> Episode:
    """What the policy is shown at each of its steps, and the actions that it should give there."""
    import torch

    from deer_policies.deer.preprocess import stack_views

    config = _worker["config"]
    assert made.rgb_static is not None, "the environment has cameras"
    assert made.rgb_gripper is not None
    views = zip(made.rgb_static, made.rgb_gripper, strict=True)
    if made.planned is None:
        labels, known = chunks(made.rel_actions, made.executed, made.looked, config.head.horizon)
    else:
        labels, known = made.planned, np.ones(made.planned.shape[:2], bool)
    robot_obs, scene_obs = made.robot_obs[made.looked], made.scene_obs[made.looked]
    return Episode(
        images=torch.stack([stack_views(static, gripper, config.preprocess) for static, gripper in views]).numpy(),
        proprioception=robot_obs.astype(np.float32),
        labels=labels,
        task=made.task,
        instructions=wordings,
        known=known,
        scene=scene_values(scene, scene_obs),
        landmarks=landmarks(robot_obs, scene_obs),
        focus=landmarks.focus(made.task, robot_obs, scene_obs),
    )
