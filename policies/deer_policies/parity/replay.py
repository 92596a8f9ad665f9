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


@dataclass(frozen=True)
class Stage:
    """One stage of a recording.

    Attributes:
        recorded_as: regular expression of the first part of a key that tells that the stage was recorded.
        replay: makes its comparisons.
        required: whether the folder is incomplete without it; without these, nothing of the policy is checked.
    """

    recorded_as: str
    replay: Callable[[Recording, Comparison], None]
    required: bool = False


STAGES: dict[str, Stage] = {
    "prompt and token ids": Stage("vocab", network.prompt),
    "preprocessing": Stage("raw_rgb", network.preprocessing),
    "vision tokens": Stage("clip_tokens_rgb", network.vision_tokens, required=True),
    "resampler": Stage("perceiver_rgb|vision_x", network.resampler, required=True),
    "hidden states": Stage("hidden_b1", network.hidden_states, required=True),
    "padded batch": Stage(network.PADDED, network.padded_batch),
    "pooled features": Stage("hidden_b1", network.pooled_features, required=True),
    "exit layers": Stage("exit_ids", runs.exit_layers, required=True),
    "static exits": Stage("static", runs.static_exits, required=True),
    "mixed exits": Stage("alternating", runs.mixed_exits),
    "dynamic exits": Stage("dyn", runs.dynamic_exits, required=True),
    "stage reuse": Stage(runs.STAGED, runs.stage_reuse),
    "max_layer": Stage(runs.LIMITED, runs.limited_layers),
    "auxiliary heads": Stage("layerwise", runs.auxiliary_heads),
    "solved thresholds": Stage("solver|solver_values", training.solved_thresholds),
    "criterion values": Stage("generate", training.criterion_values),
    "training forward": Stage("train_eval_mode", training.training_forward),
    "training losses": Stage("train_losses", training.training_losses),
}


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
            recorded = bool(recording.top(stage.recorded_as))
            found = Comparison()
            try:
                if recorded:
                    stage.replay(recording, found)
            except DeerError:
                raise
            except (RuntimeError, IndexError, ValueError) as error:
                raise ConfigError(f"{folder}: {name} can't be replayed ({error}); it is damaged") from error
            result = found.result(name)
            if not result.recorded and (recorded or stage.required):
                raise ConfigError(f"{folder} is incomplete: nothing is recorded of {name}; get the folder again")
            results.append(result)
    return Report(tuple(results), tuple(recording.unused()))
