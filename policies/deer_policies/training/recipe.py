"""A training recipe: every number that a checkpoint depends on, read from a YAML file and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from deer_policies.errors import ConfigError


@dataclass(frozen=True)
class Phase:
    """One run of the optimiser.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak rate of AdamW, reached after `warmup_steps` and lowered along a cosine to a tenth.
        heads_only: freeze all but the action heads (the paper's second phase).
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    heads_only: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.warmup_steps < 0:
            raise ConfigError(f"a phase needs steps >= 1, learning_rate > 0, warmup_steps >= 0; got {self}")


@dataclass(frozen=True)
class LanguagePhase:
    """Training of the language layers alone, to tell tasks apart by their wordings; see `language_pretraining`.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak rate of AdamW.
        batch: wordings in one update.
    """

    steps: int
    learning_rate: float = 1e-3
    batch: int = 128

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.batch < 1:
            raise ConfigError(f"a language phase needs steps >= 1, learning_rate > 0, batch >= 1; got {self}")


@dataclass(frozen=True)
class Round:
    """New episodes, then a phase of training on all that there are.

    Attributes:
        episodes_per_task: episodes to add for each task.
        phase: the training that follows.
        expert_acts: True records demonstrations; False lets the policy act and the expert correct (DAgger).
    """

    episodes_per_task: int
    phase: Phase
    expert_acts: bool = False


@dataclass(frozen=True)
class Optimisation:
    """What stays the same in all phases.

    Attributes:
        batch, window: streams side by side, and steps of each in one update.
        gripper_weight: factor of the gripper's cross-entropy against the pose's Huber loss.
        auxiliary_weight: factor of each exit's own head; 0 trains without auxiliary heads.
        samplings: random-exit samplings for the shared head: 'uniform', 'segments' or both.
        weight_decay, clip_norm: of AdamW and of the gradient.
        ema_decay: of the averaged weights that are kept.
        shift_px: largest random shift of (static, gripper) images.
        brightness: strength of the random brightness, a fraction.
        word_dropout: chance that a word of the instruction is left out.
    """

    batch: int = 16
    window: int = 16
    gripper_weight: float = 0.01
    auxiliary_weight: float = 1.0
    samplings: tuple[str, ...] = ("uniform", "segments")
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    shift_px: tuple[int, int] = (4, 2)
    brightness: float = 0.1
    word_dropout: float = 0.1

    def __post_init__(self) -> None:
        unknown = set(self.samplings) - {"uniform", "segments"}
        if unknown or not self.samplings:
            raise ConfigError(f"samplings are {self.samplings}; choose one or both of 'uniform' and 'segments'")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")
        if not 0.0 <= self.word_dropout < 1.0:
            raise ConfigError(f"word_dropout is {self.word_dropout}; it must be in [0, 1)")


@dataclass(frozen=True)
class Recipe:
    """All of a training run.

    Attributes:
        name: of the checkpoint.
        seed: of data, initial weights and sampling.
        preset: policy configuration to start from; `policy` changes single values of it.
        scenes, tasks: where and what is demonstrated.
        rounds: data and training, in order.
        heads: the last phase, on the heads alone.
        language: training of the language layers before the first round; None for a pretrained language model.
        optimisation: see `Optimisation`.
        calibration_episodes_per_task: episodes for the exit thresholds, kept apart from training.
        average_llm_gmac: budget that the checkpoint starts with; None for no limit.
    """

    name: str
    seed: int
    preset: str
    scenes: tuple[str, ...]
    tasks: tuple[str, ...]
    rounds: tuple[Round, ...]
    heads: Phase
    language: LanguagePhase | None = None
    optimisation: Optimisation = field(default_factory=Optimisation)
    policy: dict[str, Any] = field(default_factory=dict)
    calibration_episodes_per_task: int = 5
    average_llm_gmac: float | None = None

    def __post_init__(self) -> None:
        if not self.rounds or not self.rounds[0].expert_acts:
            raise ConfigError("a recipe needs rounds, the first with expert_acts: true; nobody else can act yet")
        if not self.scenes or not self.tasks:
            raise ConfigError(f"scenes are {self.scenes} and tasks {self.tasks}; name at least one of each")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint's provenance."""
        return asdict(self)


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping of settings; got {values!r}")
    allowed = {item.name for item in fields(kind)}
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise ConfigError(f"{where} has unknown settings {unknown}; allowed are {sorted(allowed)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe. Raises ConfigError naming the place of a mistake."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a mapping of settings")
    values = dict(values)
    rounds = []
    for index, entry in enumerate(values.get("rounds") or []):
        where = f"{path}: rounds[{index}]"
        entry = dict(entry, phase=_build(Phase, entry.get("phase", {}), f"{where}.phase"))
        rounds.append(_build(Round, entry, where))
    values["rounds"] = tuple(rounds)
    values["heads"] = _build(Phase, dict(values.get("heads", {}), heads_only=True), f"{path}: heads")
    if values.get("language") is not None:
        values["language"] = _build(LanguagePhase, values["language"], f"{path}: language")
    optimisation = dict(values.get("optimisation", {}))
    for name in ("samplings", "shift_px"):
        if name in optimisation:
            optimisation[name] = tuple(optimisation[name])
    values["optimisation"] = _build(Optimisation, optimisation, f"{path}: optimisation")
    for name in ("scenes", "tasks"):
        values[name] = tuple(values.get(name, ()))
    return _build(Recipe, values, str(path))
