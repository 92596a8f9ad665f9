"""Makes episodes in worker processes: demonstrations, corrections of a policy, or a policy that acts by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.deer.config import PreprocessConfig
from deer_policies.deer.exits import ThresholdRule
from deer_policies.training.episodes import Episode, save_episode
from deer_sim.tasks import FIXTURE_TASKS, TASKS
from deer_sim.workers import worker_pool

logger = logging.getLogger(__name__)

CHAINED_SHARE = 0.5
"""Share of the episodes at fixtures that begin where the arm is after another task."""


@dataclass(frozen=True)
class EpisodePlan:
    """One episode to make; all that happens in it follows from these values and the acting policy."""

    path: Path
    scene: str
    task: str
    seed: int

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
    folder: Path, scenes: tuple[str, ...], tasks: tuple[str, ...], count: int, seed: int
) -> list[EpisodePlan]:
    """Episodes of a round, `count` for each task and scene."""
    return [
        EpisodePlan(folder / f"{scene}-{task}-{index:05d}.npz", scene, task, seed * 1_000_000 + index)
        for index in range(count)
        for scene in scenes
        for task in tasks
    ]


def make_episodes(
    plans: list[EpisodePlan],
    preprocess: PreprocessConfig,
    policy: Path | None,
    workers: int,
    instructions: str,
    unaided: Unaided | None = None,
) -> None:
    """Writes the episodes that are not there yet.

    Args:
        plans: what to make.
        preprocess: of the policy that will be trained.
        policy: checkpoint of the policy that acts; None lets the expert act, with random pushes.
        workers: processes.
        instructions: 'training' or 'validation' wordings.
        unaided: how the policy acts by itself; None draws an exit at every step, and the expert corrects.
    """
    missing = [plan for plan in plans if not plan.path.exists()]
    if not missing:
        return
    started = reported = time.monotonic()
    arguments = (preprocess, policy, instructions, unaided)
    with worker_pool(workers, _start_worker, arguments) as pool:
        futures = [pool.submit(_make_episode, plan) for plan in missing]
        solved = 0
        for count, future in enumerate(as_completed(futures), 1):
            solved += future.result()
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


def _start_worker(
    preprocess: PreprocessConfig, policy: Path | None, instructions: str, unaided: Unaided | None
) -> None:
    import torch

    torch.set_num_threads(1)
    _worker.update(preprocess=preprocess, instructions=instructions, policy=None, unaided=unaided, environments={})
    if policy is not None:
        from deer_policies.deer.checkpoint import load_policy

        _worker["policy"] = load_policy(policy)


def _make_episode(plan: EpisodePlan) -> bool:
    import torch

    from deer_policies.deer.preprocess import stack_views
    from deer_policies.training.exit_sampling import RandomExitRule
    from deer_sim import instructions
    from deer_sim.collection import Disturbance, collect_episode
    from deer_sim.correction import correct_episode
    from deer_sim.expert import Expert
    from deer_sim.playtable.environment import PlayTable
    from deer_sim.starts import after_a_fixture_task, sample_start
    from deer_sim.unaided import unaided_episode

    environments = _worker["environments"]
    if plan.scene not in environments:
        environments[plan.scene] = PlayTable(plan.scene)
    environment, expert = environments[plan.scene], Expert(plan.scene)
    rng = plan.rng()
    wordings = getattr(instructions, _worker["instructions"])(plan.task)
    instruction = wordings[rng.integers(len(wordings))]
    start = sample_start(plan.task, plan.scene, rng)
    if plan.task in FIXTURE_TASKS and rng.random() < CHAINED_SHARE:
        start = after_a_fixture_task(start, plan.task, plan.scene, rng)
    policy, unaided = _worker["policy"], _worker["unaided"]
    if policy is None:
        made = collect_episode(environment, expert, plan.task, instruction, start, rng, Disturbance())
    elif unaided is not None:
        policy.set_exit_rule(unaided.rule)
        made = unaided_episode(environment, expert, policy, plan.task, instruction, start, rng, unaided.max_steps)
    else:
        policy.set_exit_rule(RandomExitRule(len(policy.info.exit_layers), rng))
        made = correct_episode(environment, expert, policy, plan.task, instruction, start, rng)
    preprocess = _worker["preprocess"]
    assert made.rgb_static is not None, "the environment has cameras"
    assert made.rgb_gripper is not None
    views = zip(made.rgb_static, made.rgb_gripper, strict=True)
    images = torch.stack([stack_views(static, gripper, preprocess) for static, gripper in views]).numpy()
    episode = Episode(images, made.robot_obs.astype(np.float32), made.rel_actions, plan.task, tuple(wordings))
    save_episode(plan.path, episode)
    return made.success
