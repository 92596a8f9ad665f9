"""Episodes in which a policy acts by itself to the end, recorded: what it will see and meet in use."""

from __future__ import annotations

import numpy as np

from deer_policies.interfaces import ExitReport, Policy
from deer_sim.collection import Episode, Recorder
from deer_sim.environment import Environment, TimeStep
from deer_sim.rollout import MAX_STEPS, PolicyActor, rollout


class _Recorded(PolicyActor):
    """Records every control step; those at which the policy does not look have no pictures."""

    def __init__(self, policy: Policy, recorder: Recorder) -> None:
        super().__init__(policy)
        self._recorder = recorder

    def act(self, now: TimeStep) -> tuple[np.ndarray, ExitReport | None]:
        """See `deer_sim.rollout.Actor`."""
        action, report = super().act(now)
        self._recorder.add(now, label=action, executed=action)
        return action, report


def unaided_episode(
    environment: Environment,
    policy: Policy,
    task: str,
    instruction: str,
    first: TimeStep,
    max_steps: int = MAX_STEPS,
) -> Episode:
    """Lets the policy act from `first` until the task is solved or `max_steps` are over; its actions are the labels.

    There are pictures of the steps at which the policy looks. Arguments are those of
    `deer_sim.collection.collect_episode`.
    """
    recorder = Recorder(task, instruction)
    result = rollout(environment, _Recorded(policy, recorder), task, instruction, first, max_steps)
    return recorder.finish(result.last, result.success)
