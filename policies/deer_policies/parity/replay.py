"""All stages of a recording, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from deer_policies.errors import ConfigError, DeerError
from deer_policies.parity import network, runs, training
from deer_policies.parity.comparison import Comparison, StageResult
from deer_policies.parity.recording import Recording

STAGES: dict[str, Callable[[Recording, Comparison], None]] = {
    "prompt and token ids": network.prompt,
    "preprocessing": network.preprocessing,
    "vision tokens": network.vision_tokens,
    "resampler": network.resampler,
    "hidden states": network.hidden_states,
    "padded batch": network.padded_batch,
    "pooled features": network.pooled_features,
    "exit layers": runs.exit_layers,
    "static exits": runs.static_exits,
    "mixed exits": runs.mixed_exits,
    "dynamic exits": runs.dynamic_exits,
    "stage reuse": runs.stage_reuse,
    "max_layer": runs.limited_layers,
    "auxiliary heads": runs.auxiliary_heads,
    "solved thresholds": training.solved_thresholds,
    "criterion values": training.criterion_values,
    "training forward": training.training_forward,
    "training losses": training.training_losses,
}
OPTIONAL = frozenset({"prompt and token ids", "preprocessing", "stage reuse", "max_layer"})
"""Stages that a recording may lack; where another one is not recorded, the folder is incomplete."""


@dataclass(frozen=True)
class Report:
    """What came of replaying a folder.

    Attributes:
        results: of every stage, in the order of computation.
        not_replayed: what is recorded but no stage looked at, see `Recording.unused`.
    """

    results: tuple[StageResult, ...]
    not_replayed: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every stage holds."""
        return all(result.holds for result in self.results)


def replay(folder: Path) -> Report:
    """Replays a folder with official compatibility, in float32 on the CPU.

    Raises:
        ConfigError: if the folder is incomplete, or its numbers are damaged.
        CheckpointError: if its weights are damaged, or don't fit its configuration.
    """
    with torch.inference_mode():
        recording = Recording(folder)
        results = []
        for name, stage in STAGES.items():
            found = Comparison()
            try:
                stage(recording, found)
            except DeerError:
                raise
            except (RuntimeError, IndexError, ValueError) as error:
                raise ConfigError(f"{folder}: {name} can't be replayed ({error}); it is damaged") from error
            result = found.result(name)
            if not result.recorded and name not in OPTIONAL:
                raise ConfigError(f"{folder} is incomplete: nothing is recorded of {name}; get the folder again")
            results.append(result)
    return Report(tuple(results), tuple(recording.unused()))
