"""A training recipe: every number that a checkpoint depends on, read from a YAML file and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from deer_policies.deer.criteria import checked_criterion
from deer_policies.errors import ConfigError

PARTS = ("vision", "resampler", "embedding", "cross_attention", "decoder")
"""Parts of a model beside its action heads, for `Optimisation.frozen`; 'decoder' are the MPT blocks."""


@dataclass(frozen=True)
class Phase:
    """One run of the optimiser.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak rate of AdamW, reached after `warmup_steps`.
        heads_only: freeze all but the action heads (the paper's second phase).
        schedule: of the rate: 'cosine' lowers it to a tenth of the peak, 'constant' keeps it (the paper's).
        head_rate_scale: factor of the rate for the action heads.
        frozen: parts that this phase leaves alone, out of `PARTS`, beside those of `Optimisation`.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    heads_only: bool = False
    schedule: str = "cosine"
    head_rate_scale: float = 1.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.warmup_steps < 0 or self.head_rate_scale <= 0:
            raise ConfigError(
                f"a phase needs steps >= 1, learning_rate > 0, warmup_steps >= 0, head_rate_scale > 0; got {self}"
            )
        _among("schedule", [self.schedule], ("cosine", "constant"))
        _among("frozen", self.frozen, PARTS)


@dataclass(frozen=True)
class PretrainingPhase:
    """Training of a part alone that starts from random weights; see `language_pretraining` and `vision_pretraining`.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak rate of AdamW.
        batch: wordings, or frames, in one update.
    """

    steps: int
    learning_rate: float = 1e-3
    batch: int = 128

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.batch < 1:
            raise ConfigError(f"a pretraining phase needs steps >= 1, learning_rate > 0, batch >= 1; got {self}")


@dataclass(frozen=True)
class SkillsPhase:
    """Training of the recogniser of skills, a text model beside the policy; see `training.skills`.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak rate of AdamW.
        batch: texts in one update.
    """

    steps: int = 5000
    learning_rate: float = 3e-3
    batch: int = 128

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.batch < 1:
            raise ConfigError(f"a skills phase needs steps >= 1, learning_rate > 0, batch >= 1; got {self}")


@dataclass(frozen=True)
class Round:
    """New episodes, then a phase of training on all that there are.

    Attributes:
        phase: the training that follows.
        episodes_per_task: episodes to add for each task; 0 in a first round whose episodes are the recipe's `data`.
        expert_acts: True records demonstrations; False lets the policy act and the expert correct (DAgger).
        ahead: its episodes are made while the round before trains, so the policy that acts in them is one round older.
        emphasis: by task: how many times the others' share it has of this round's new episodes and of its training.
    """

    phase: Phase
    episodes_per_task: int = 0
    expert_acts: bool = False
    ahead: bool = False
    emphasis: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = {task: times for task, times in self.emphasis.items() if not isinstance(times, int) or times < 1}
        if wrong:
            raise ConfigError(f"emphasis is {wrong}; it must be a whole number of at least 1 for each task")


@dataclass(frozen=True)
class Optimisation:
    """What stays the same in all phases.

    Attributes:
        batch, window: streams side by side, over all processes, and steps of each in one update.
        gripper_weight: factor of the gripper's cross-entropy against the pose's Huber loss.
        scene_weight: factor of the loss that has the scene read from the visual latents, see `scene_readout`; 0 does
            without.
        focus_weight: factor of the loss that has the thing that the instruction is about read from the features of
            every exit, see `focus_readout`; 0 does without.
        auxiliary_weight: factor of each exit's own head; 0 trains without auxiliary heads.
        samplings: random-exit samplings for the shared head: 'uniform', 'segments' or both.
        exit_shares: relative chance of each exit in both samplings, shallowest first; none has them all alike (the
            paper's).
        distillation_weight: factor of the loss that has every head also imitate the deepest exit's own head, see
            `objective.head_losses`; 0 does without (the paper's).
        weight_decay, clip_norm: of AdamW and of the gradient.
        decayed: what the weight decay acts on: 'all' matrices, or those of 'cross_attention' alone (the paper's).
        frozen: parts that are not trained, out of `PARTS`; the paper freezes vision and decoder.
        ema_decay: of the averaged weights that are kept; 0 keeps the weights themselves.
        shift_px: largest random shift of (static, gripper) images.
        brightness: strength of the random brightness, a fraction.
        tint: strength of the random changes of single colour channels, a fraction.
        word_dropout: chance that a word of the instruction is left out.
        carry_state: play episodes from their start in consecutive windows and carry the recurrent state over; False
            cuts windows anywhere in the episodes and starts each from a zero state (the paper's).
        precision: of the forward pass: 'bfloat16' (autocast; float32 on a CPU without it) or 'float32'.
    """

    batch: int = 16
    window: int = 16
    gripper_weight: float = 0.01
    scene_weight: float = 0.0
    focus_weight: float = 0.0
    auxiliary_weight: float = 1.0
    samplings: tuple[str, ...] = ("uniform", "segments")
    exit_shares: tuple[float, ...] = ()
    distillation_weight: float = 0.0
    weight_decay: float = 0.01
    decayed: str = "all"
    frozen: tuple[str, ...] = ()
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    shift_px: tuple[int, int] = (4, 2)
    brightness: float = 0.1
    tint: float = 0.0
    word_dropout: float = 0.1
    carry_state: bool = True
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        _among("samplings", self.samplings, ("uniform", "segments"))
        if not self.samplings:
            raise ConfigError("samplings are empty; choose one or both of 'uniform' and 'segments'")
        if self.exit_shares and min(self.exit_shares) <= 0.0:
            raise ConfigError(f"exit_shares are {self.exit_shares}; each exit needs a share above 0")
        if self.distillation_weight < 0.0 or (self.distillation_weight and self.auxiliary_weight <= 0.0):
            raise ConfigError(
                f"distillation_weight is {self.distillation_weight} and auxiliary_weight {self.auxiliary_weight}; the "
                "one must be at least 0, and the deepest exit's own head, which is imitated, needs the other above 0"
            )
        _among("decayed", [self.decayed], ("all", "cross_attention"))
        _among("frozen", self.frozen, PARTS)
        _among("precision", [self.precision], ("bfloat16", "float32"))
        if min(self.batch, self.window) < 1 or self.clip_norm <= 0.0 or self.weight_decay < 0.0:
            raise ConfigError(f"training needs batch, window >= 1, clip_norm > 0, weight_decay >= 0; got {self}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")
        if not 0.0 <= self.word_dropout < 1.0:
            raise ConfigError(f"word_dropout is {self.word_dropout}; it must be in [0, 1)")


@dataclass(frozen=True)
class Validation:
    """Early stop: the loss on episodes kept apart decides how long a phase lasts and which averaged weights are kept.

    Attributes:
        episodes_per_task: demonstrations with starts of their own.
        every: updates between two measurements.
        patience: a phase ends after so many measurements in a row that were no better than its best.
    """

    episodes_per_task: int
    every: int
    patience: int

    def __post_init__(self) -> None:
        if min(self.episodes_per_task, self.every, self.patience) < 1:
            raise ConfigError(f"validation needs episodes_per_task, every and patience of at least 1; got {self}")


@dataclass(frozen=True)
class RecordedData:
    """Episodes that are there already: the first round trains on them, and `validation` measures on their validation.

    Attributes:
        calvin: folder of a dataset in CALVIN's layout, such as task_D_D.
    """

    calvin: str


@dataclass(frozen=True)
class Recipe:
    """All of a training run.

    Attributes:
        name: of the checkpoint.
        seed: of data, initial weights and sampling.
        preset: policy configuration to start from; `policy` changes single values of it.
        weights: checkpoint to start from, a bundled policy's name or a path; None starts from random weights.
        scenes: where tasks are demonstrated: letters of play tables, or names such as 'calvin:D'.
        tasks: what is demonstrated; none for all that there are.
        rounds: data and training, in order.
        data: recorded episodes for the first round; None has the expert demonstrate.
        heads: the last phase, on the heads alone.
        language: training of the language layers before the first round; None for a pretrained language model.
        vision: training of vision and resampler on the first round's frames; None for pretrained vision.
        skills: training of what recognises instructions outside the skills; None makes a policy that follows any text.
        optimisation: see `Optimisation`.
        validation: see `Validation`; None trains every phase to its end.
        calibration_episodes_per_task: episodes for the exit thresholds, kept apart from training.
        calibration_max_steps: control steps after which such an episode ends unsolved.
        exit_criterion: what exit thresholds are for: 'action' (the paper's), 'feature', 'time' or 'predicted'.
        average_llm_gmac: budget that the checkpoint starts with; None for no limit.
    """

    name: str
    seed: int
    preset: str
    scenes: tuple[str, ...]
    rounds: tuple[Round, ...]
    heads: Phase
    tasks: tuple[str, ...] = ()
    data: RecordedData | None = None
    language: PretrainingPhase | None = None
    vision: PretrainingPhase | None = None
    skills: SkillsPhase | None = None
    optimisation: Optimisation = field(default_factory=Optimisation)
    policy: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    validation: Validation | None = None
    calibration_episodes_per_task: int = 5
    calibration_max_steps: int = 360
    exit_criterion: str = "action"
    average_llm_gmac: float | None = None

    def __post_init__(self) -> None:
        checked_criterion(self.exit_criterion)
        if not self.rounds:
            raise ConfigError("a recipe needs rounds, at least one")
        first, later = self.rounds[0], self.rounds[1:]
        if self.data is None and not first.expert_acts:
            raise ConfigError("the first round needs expert_acts: true, or the recipe data; nobody else can act yet")
        if first.ahead or (len(later) > 0 and later[0].ahead and not later[0].expert_acts):
            raise ConfigError("a round that is made ahead needs one before it, and a policy that acts in it two")
        if self.data is not None and (first.expert_acts or first.episodes_per_task):
            raise ConfigError("the first round trains on the data; leave out its expert_acts and episodes_per_task")
        if any(part.episodes_per_task < 1 for part in (later if self.data else self.rounds)):
            raise ConfigError("a round needs episodes_per_task of at least 1")
        for part in ("language", "vision"):
            if self.weights is not None and getattr(self, part) is not None:
                raise ConfigError(f"a recipe names both weights and a {part} phase; start from the one or the other")
        emphasised = {task for part in self.rounds for task in part.emphasis}
        if self.tasks and not emphasised <= set(self.tasks):
            raise ConfigError(f"emphasis names {sorted(emphasised - set(self.tasks))}, which are not among the tasks")
        settings = self.optimisation
        if (self.vision is not None or settings.scene_weight or settings.focus_weight) and any(settings.shift_px):
            raise ConfigError(
                "in shifted images things are elsewhere than the scene says; with a vision phase, a scene_weight or a "
                "focus_weight set shift_px to [0, 0]"
            )
        if not self.scenes:
            raise ConfigError("a recipe needs scenes, at least one")
        if min(self.calibration_episodes_per_task, self.calibration_max_steps) < 1:
            raise ConfigError(
                f"calibration has {self.calibration_episodes_per_task} episodes a task of at most "
                f"{self.calibration_max_steps} steps; both must be at least 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint's provenance."""
        return asdict(self)


def _among(name: str, values: Iterable[str], allowed: tuple[str, ...]) -> None:
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ConfigError(f"{name} can't be {', '.join(map(repr, unknown))}; allowed are {', '.join(allowed)}")


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


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings in a file, on top of those of the recipe that it names as `base`, by a path beside it."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a mapping of settings")
    if "base" not in values:
        return values
    if "name" not in values:
        raise ConfigError(f"{path} has no name; with its base's it would go on with that recipe's run")
    if path.resolve() in above:
        raise ConfigError(f"{path} is in the end its own base; name another")
    base = _read(path.parent / str(values.pop("base")), (*above, path.resolve()))
    return _overridden(base, values)


def _overridden(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged; whatever else the second has, lists too, stands for what the first had."""
    merged = dict(base)
    for name, value in values.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _overridden(base[name], value) if both else value
    return merged


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe. Raises ConfigError naming the place of a mistake."""
    values = _read(path)
    rounds = []
    for index, entry in enumerate(values.get("rounds") or []):
        where = f"{path}: rounds[{index}]"
        phase = entry.get("phase", {})
        if isinstance(phase, dict) and "frozen" in phase:
            phase = dict(phase, frozen=tuple(phase["frozen"]))
        entry = dict(entry, phase=_build(Phase, phase, f"{where}.phase"))
        rounds.append(_build(Round, entry, where))
    values["rounds"] = tuple(rounds)
    values["heads"] = _build(Phase, dict(values.get("heads", {}), heads_only=True), f"{path}: heads")
    for name in ("language", "vision"):
        if values.get(name) is not None:
            values[name] = _build(PretrainingPhase, values[name], f"{path}: {name}")
    if values.get("skills") is not None:
        values["skills"] = _build(SkillsPhase, values["skills"], f"{path}: skills")
    optimisation = dict(values.get("optimisation", {}))
    for name in ("samplings", "exit_shares", "shift_px", "frozen"):
        if name in optimisation:
            optimisation[name] = tuple(optimisation[name])
    values["optimisation"] = _build(Optimisation, optimisation, f"{path}: optimisation")
    if values.get("data") is not None:
        values["data"] = _build(RecordedData, values["data"], f"{path}: data")
    if values.get("validation") is not None:
        values["validation"] = _build(Validation, values["validation"], f"{path}: validation")
    for name in ("scenes", "tasks"):
        values[name] = tuple(values.get(name, ()))
    return _build(Recipe, values, str(path))
