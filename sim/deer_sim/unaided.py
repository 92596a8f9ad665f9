"""Episodes in which a policy acts by itself to the end, recorded: what it will see and meet in use."""

from __future__ import annotations

import numpy as np

from deer_policies.interfaces import Policy
from deer_sim.collection import Episode, Recorder, begin_at
from deer_sim.environment import Environment
from deer_sim.expert import Expert
from deer_sim.rollout import MAX_STEPS, PolicyActor, rollout
from deer_sim.starts import Start


def unaided_episode(
    environment: Environment,
    expert: Expert,
    policy: Policy,
    task: str,
    instruction: str,
    start: Start,
    rng: np.random.Generator,
    max_steps: int = MAX_STEPS,
) -> Episode:
    """Lets the policy act from `start` until the task is solved or `max_steps` are over; its actions are the labels.

    The expert does the tasks of the start's prefix only. Arguments are those of `deer_sim.collection.collect_episode`.
    """
    first, _ = begin_at(environment, expert, start, int(rng.integers(2**31)))
    recorder = Recorder(task, instruction)
    result = rollout(
        environment,
        PolicyActor(policy),
        task,
        instruction,
        first,
        max_steps,
        lambda seen, action, report: recorder.add(seen, label=action, executed=action),
    )
    return recorder.finish(result.last, result.success)
