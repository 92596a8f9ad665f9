"""Expert corrections on a policy's own states (DAgger, Ross et al. 2011): the policy acts, the expert labels."""

from __future__ import annotations

from collections import deque

import numpy as np

from deer_policies.interfaces import Policy
from deer_sim.collection import Episode, Recorder
from deer_sim.engine.environment import TableEnvironment
from deer_sim.environment import TimeStep
from deer_sim.expert import Expert
from deer_sim.foresight import foreseen
from deer_sim.tasks import solved

POLICY_STEPS = 120
"""Control steps that a policy may take before the expert finishes the task."""
LARGEST_LEAD_M = 0.1
"""An episode ends when the target is further from the tool than this: the policy has driven against something and can't
see how far, so there is nothing to learn from what the expert would do."""
EXPERT_STEPS = 150
"""Control steps that the expert then has."""
EARLY_TAKEOVER = 0.25
"""Share of the episodes in which the expert takes over at a random step before that."""


def correct_episode(
    environment: TableEnvironment,
    expert: Expert,
    policy: Policy,
    task: str,
    instruction: str,
    first: TimeStep,
    rng: np.random.Generator,
) -> Episode:
    """Lets the policy act from `first`, labels each step with the expert's action; the expert finishes if need be.

    In some of the episodes the expert takes over early, so that the data shows a way out of the states that the policy
    reaches. There are pictures of the steps at which the policy looks, or would look. Arguments are those of
    `deer_sim.collection.collect_episode`.
    """
    expert.begin(task, first)
    state = policy.initial_state()
    horizon = policy.info.horizon
    policy_steps = int(rng.integers(10, POLICY_STEPS)) if rng.random() < EARLY_TAKEOVER else POLICY_STEPS
    recorder = Recorder(task, instruction)
    now, success = first, False
    chunk: deque[np.ndarray] = deque()
    for step in range(policy_steps + EXPERT_STEPS):
        label = executed = expert.action(now)
        planned = foreseen(environment, expert, now, horizon) if step % horizon == 0 else None
        if planned is not None and step < policy_steps:
            given, state, _ = policy.step(now.observation(instruction), state)
            chunk.extend(given.actions)
        if chunk:
            executed = chunk.popleft()
        recorder.add(now, label, executed, planned=planned)
        now = environment.step(executed, look=(step + 1) % horizon == 0)
        expert.executed(executed)
        success = bool(solved(first.state, now.state, (task,)))
        if success or expert.lead_m(now) > LARGEST_LEAD_M:
            break
    return recorder.finish(now, success)
