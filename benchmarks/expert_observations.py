"""What policies are compared on in benchmarks: the camera images and robot states of expert episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deer_policies.interfaces import Observation
from deer_sim import instructions
from deer_sim.collection import Disturbance, begin_at, collect_episode
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import sample_start
from deer_sim.tasks import TASKS


def record(scene: str, tasks: Sequence[str], episodes: int, seed: int, horizon: int) -> list[list[Observation]]:
    """What the cameras see while the expert, pushed at times, does each task from random starts, episode by episode.

    The observations are those of every `horizon`-th control step, at which a policy of this horizon looks.
    """
    recorded = []
    with PlayTable(scene) as environment:
        expert = Expert(scene)
        for task in tasks:
            wordings = instructions.validation(task)
            for index in range(episodes):
                rng = np.random.default_rng([seed, index, TASKS.index(task)])
                wording = wordings[rng.integers(len(wordings))]
                first, _ = begin_at(environment, expert, sample_start(task, scene, rng), int(rng.integers(2**31)))
                made = collect_episode(
                    environment, expert, task, wording, first, rng, Disturbance(), look_every=horizon
                )
                assert made.rgb_static is not None
                assert made.rgb_gripper is not None
                robot = made.robot_obs[made.looked].astype(np.float32)
                frames = zip(made.rgb_static, made.rgb_gripper, robot, strict=True)
                recorded.append([Observation(*frame, wording, 0.0) for frame in frames])
    return recorded
