"""Steps a policy; when memory runs out, it gives up the deepest exit and takes the same step again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deer_policies.errors import DeerError
from deer_policies.interfaces import ActionChunk, ExitReport, Observation, Policy, ReduciblePolicy
from deer_ros.control.process_memory import give_back, ran_out_of_memory


class ModelMemoryError(DeerError):
    """There is not enough memory for a step, however shallow."""


class MemoryFallback:
    """A policy that does without its deepest exits once memory has run out.

    Args:
        policy: an exit of it is given up if it is a `ReduciblePolicy`.
        warn: called with the words about it each time that an exit is given up.
    """

    def __init__(self, policy: Policy, warn: Callable[[str], None]) -> None:
        self.reduced = ""
        """Which exits were given up and why, in words; empty if none was."""
        self._policy = policy
        self._warn = warn

    def step(
        self, observation: Observation, state: Any, check: Callable[[], None] = lambda: None
    ) -> tuple[ActionChunk, Any, ExitReport]:
        """See `Policy.step`; every attempt starts from `state`, and before each `check` may raise to end them.

        Raises:
            ModelMemoryError: if memory is too short for the first exit that can be taken.
        """
        while True:
            check()
            try:
                return self._policy.step(observation, state)
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                trouble = f"{type(error).__name__}: {error}".splitlines()[0]
            # Only here, where the error is gone, nothing holds on to what the failed step had allocated.
            give_back()
            self._reduce(trouble)

    def forget(self) -> None:
        """All exits of the budget are in use again."""
        self.reduced = ""

    def _reduce(self, trouble: str) -> None:
        policy = self._policy
        if not isinstance(policy, ReduciblePolicy) or policy.exits_in_use <= 1:
            raise ModelMemoryError(f"the model ran out of memory, and there is no smaller exit: {trouble}")
        deepest = policy.exits_in_use - 2
        try:
            policy.limit_exits(deepest + 1)
        except DeerError as error:
            raise ModelMemoryError(f"the model ran out of memory, and {error}: {trouble}") from error
        layers = policy.info.exit_layers[deepest] + 1
        self.reduced = f"reduced to exit {deepest} ({layers} layers) after running out of memory"
        self._warn(f"{self.reduced}; set_budget brings the deeper exits back ({trouble})")
