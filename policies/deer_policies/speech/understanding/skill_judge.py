"""The recogniser of skills of a policy's checkpoint as the judge of what was said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deer_policies.errors import CheckpointError


class CheckpointJudge:
    """Args:
    policy: name of a bundled policy, or path of a checkpoint.

    Attributes:
        tasks: names, in the order of the columns.
        examples: a sentence for each.

    Raises:
        CheckpointError: if there is none, or it has no recogniser of skills.
    """

    def __init__(self, policy: str) -> None:
        import torch

        from deer_policies.deer.checkpoint import load

        torch.set_num_threads(1)
        recogniser = load(policy, exits=1).skills
        if recogniser is None:
            raise CheckpointError(f"policy {policy} has no recogniser of skills; `deer teach` adds one")
        self._recogniser = recogniser
        self.tasks: tuple[str, ...] = recogniser.skills.tasks
        self.examples = dict(recogniser.skills.examples)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """See `SkillJudge`."""
        return np.asarray(self._recogniser.probabilities(texts).numpy())
