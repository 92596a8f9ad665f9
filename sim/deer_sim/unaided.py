"""Episodes in which a policy acts by itself to the end, recorded: what it will see and meet in use."""

from __future__ import annotations

from deer_policies.interfaces import Policy
from deer_sim.collection import Episode, Recorder
from deer_sim.environment import Environment, TimeStep
from deer_sim.rollout import MAX_STEPS, PolicyActor, rollout


def unaided_episode(
    environment: Environment,
    policy: Policy,
    task: str,
    instruction: str,
    first: TimeStep,
    max_steps: int = MAX_STEPS,
) -> Episode:
    """Lets the policy act from `first` until the task is solved or `max_steps` are over; its actions are the labels.

    Arguments are those of `deer_sim.collection.collect_episode`.
    """
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
