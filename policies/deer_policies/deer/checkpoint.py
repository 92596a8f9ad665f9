"""Checkpoints: safetensors files with weights, full configuration, tokenizer, calibration and recogniser of skills."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel, loadable_exits
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.precision import Storage, converted, is_packed, precision_named
from deer_policies.deer.predicted_distance import PredictedDistance
from deer_policies.deer.skills import SkillRecogniser
from deer_policies.deer.tensor_files import content_sha256, read_tensors, write_tensors
from deer_policies.deer.thresholds import Calibration, Tuned
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError, ConfigError, DeerError, listed
from deer_policies.interfaces import Budget

logger = logging.getLogger(__name__)

FORMAT = "deer-checkpoint-1"
BUNDLED = Path(__file__).resolve().parents[1] / "checkpoints"
CALIBRATION = "calibration."
CALIBRATION_TENSORS = ("values", "tokens", "errors", "episodes")
"""Fields of `Calibration` that are tensors; the first is always there."""
AUXILIARY = "auxiliary_heads."
PROVENANCE = "provenance"
SKILLS, SKILLS_DESCRIBED = "skills.", "skills"
"""Of the recogniser: beginning of the names of its tensors, and the entry of the metadata that describes it."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        model: with its weights.
        tokenizer: the one that it was trained with.
        calibration: criterion values, or None.
        budget: in force when the policy starts.
        provenance: seed, recipe, scores: plain JSON values.
        untrained: whether the action heads hold initial values only; it can then be trained on, but not run.
        sha256: of all that actions follow from, see `acting_sha256`; empty for one that was not read from a file.
        skills: recognises instructions that the policy can't follow, or None.
    """

    model: DeerModel
    tokenizer: Tokenizer
    calibration: Calibration | None = None
    budget: Budget = field(default_factory=Budget)
    provenance: dict[str, Any] = field(default_factory=dict)
    untrained: bool = False
    sha256: str = ""
    skills: SkillRecogniser | None = None

    @property
    def name(self) -> str:
        """That of the recipe that it was trained by, which tells those of one configuration apart."""
        return str(self.provenance.get("recipe", {}).get("name", self.model.config.name))


def save(
    path: str | Path, checkpoint: Checkpoint, auxiliary_heads: bool = False, dtype: torch.dtype = torch.float32
) -> None:
    """Writes a checkpoint, complete or not at all; equal checkpoints give equal bytes.

    Args:
        path: of the file; its folder is made.
        checkpoint: what to write.
        auxiliary_heads: keep those as well; only training needs them.
        dtype: of the weights in the file.

    Raises:
        CheckpointError: if a weight is beyond the range of `dtype`, or was packed as integers when it was loaded.
    """
    path = Path(path)
    tensors = {
        name: _written(name, tensor, dtype)
        for name, tensor in checkpoint.model.state_dict().items()
        if auxiliary_heads or not name.startswith(AUXILIARY)
    }
    metadata = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.model.config.to_dict()),
        "tokenizer": checkpoint.tokenizer.to_json(),
        "budget": json.dumps(asdict(checkpoint.budget)),
        PROVENANCE: json.dumps(checkpoint.provenance),
        "untrained": json.dumps(checkpoint.untrained),
    }
    calibration = checkpoint.calibration
    if calibration is not None:
        for name in CALIBRATION_TENSORS:
            if (tensor := getattr(calibration, name)) is not None:
                tensors[CALIBRATION + name] = tensor.cpu().contiguous()
        described = {name: getattr(calibration, name) for name in ("criterion", "source", "paced")}
        described["tuned"] = [asdict(tuned) for tuned in calibration.tuned]
        if calibration.predicted is not None:
            described["predicted"] = asdict(calibration.predicted)
        metadata["calibration"] = json.dumps(described)
    if checkpoint.skills is not None:
        weights = checkpoint.skills.state_dict()
        tensors.update({SKILLS + name: tensor.cpu().contiguous() for name, tensor in weights.items()})
        metadata[SKILLS_DESCRIBED] = checkpoint.skills.to_json()
    write_tensors(path, tensors, metadata)


def _written(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if is_packed(tensor):
        raise CheckpointError(f"{name} is packed as integers, which is for running only; load it as float32 to save it")
    return converted(name, tensor, dtype)


def save_with_provenance(path: str | Path, source: Path, provenance: dict[str, Any]) -> None:
    """Writes a copy of a checkpoint's file with another provenance; its `acting_sha256` stays the same.

    Raises:
        CheckpointError: if the source is damaged or no checkpoint.
    """
    with _errors_explained(source), safetensors.safe_open(source, "pt") as file:
        metadata = file.metadata() or {}
        _config(source, metadata)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    write_tensors(Path(path), tensors, {**metadata, PROVENANCE: json.dumps(provenance)})


def find(name_or_path: str | Path) -> Path:
    """The file of a bundled checkpoint's name or of a path. Raises CheckpointError if there is none."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = BUNDLED / f"{name_or_path}.safetensors"
    if path.name == str(name_or_path) and bundled.is_file():
        return bundled
    names = sorted(file.stem for file in BUNDLED.glob("*.safetensors"))
    raise CheckpointError(
        f"there is no checkpoint {str(name_or_path)!r}: give the path of a .safetensors file"
        + (f", or one of the bundled names {', '.join(names)}" if names else "; none is bundled here")
    )


def load(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    peak: Budget | None = None,
    auxiliary_heads: bool = False,
    precision: str = "float32",
    exits: int | None = None,
) -> Checkpoint:
    """Reads a checkpoint.

    Weights are converted as they are read, one at a time, so that they never stand in memory twice.

    Args:
        name_or_path: bundled name, such as 'deer-nano', or path.
        device: where the weights go.
        peak: layers beyond what its peak limits allow (computation, memory) are not even read.
        auxiliary_heads: build the auxiliary heads too, to train on; the file must hold them.
        precision: how weights are held, a name in `precision.PRECISIONS`; models are trained in float32.
        exits: layers beyond the first so many exits are not read either; None sets no limit.

    Raises:
        CheckpointError: if there is no such file, it is damaged, or a tensor is missing, unexpected, misshapen or
            beyond the range of float16.
        ConfigError: if there is no such precision, or the library for it is missing.
        BudgetError: if the peak limits don't even allow the first exit.
    """
    path, held = find(name_or_path), precision_named(precision)
    with _errors_explained(path), safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        config = _config(path, metadata)
        tokenizer = Tokenizer.from_json(metadata["tokenizer"])
        if peak is not None:
            affordable = loadable_exits(peak, CostModel(config), held)
            exits = affordable if exits is None else min(exits, affordable)
        with torch.device("meta"):
            empty = DeerModel(config, auxiliary_heads, exits)
        wanted, storage = empty.state_dict(), Storage(held, empty)
        _check_names(path, set(file.keys()), wanted, config)
        if storage.unpacked:
            logger.warning("%s: no %s kernel takes the shape of %s", path, held.name, listed(storage.unpacked))
        calibration = _calibration(path, file, metadata, config)
        skills = _skills(file, metadata)
        budget = Budget(**json.loads(metadata.get("budget", "{}")))
        provenance = json.loads(metadata.get(PROVENANCE, "{}"))
        untrained = bool(json.loads(metadata.get("untrained", "false")))
        shapes = {name: like.shape for name, like in wanted.items()}
        weights = {name: storage.stored(name, tensor, device) for name, tensor in read_tensors(path, shapes)}
    model = DeerModel.from_weights(config, weights, auxiliary_heads, exits)
    sha256 = acting_sha256(path)
    return Checkpoint(model.to(device), tokenizer, calibration, budget, provenance, untrained, sha256, skills)


def acting_sha256(path: Path) -> str:
    """Hash of what actions follow from in a checkpoint's file: weights, configuration, tokenizer, calibration, budget.

    Noting scores in its provenance leaves it as it is, and so does teaching it a recogniser of skills, by
    which evaluations do not act; so scores stay those of this very policy.
    """
    return content_sha256(path, (PROVENANCE, SKILLS_DESCRIBED), SKILLS)


def read_config(name_or_path: str | Path) -> DeerConfig:
    """The configuration of a checkpoint, without its weights. Raises CheckpointError as `load` does."""
    path = find(name_or_path)
    with _errors_explained(path), safetensors.safe_open(path, "pt") as file:
        return _config(path, file.metadata() or {})


def load_policy(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    peak: Budget | None = None,
    precision: str = "float32",
) -> DeerPolicy:
    """A policy that is ready to run; see `load` for what is not said here.

    Args:
        peak: in force from the start, instead of the budget that the checkpoint names. Layers that its limits on peak
            computation, peak memory or latency leave out are not even read.

    Raises:
        CheckpointError: also if the action heads were never trained.
        BudgetError: also if the first exit is too slow, or an average can't be met.
    """
    return within_peak(partial(load, name_or_path, device, peak, precision=precision), peak)


def within_peak(read: Callable[..., Checkpoint], peak: Budget | None) -> DeerPolicy:
    """A policy of what `read(exits=...)` gives under a budget; see `load_policy`."""
    exits = None
    if peak is not None and peak.latency_ms is not None:
        # The times of the first exit's layers tell which others are worth being in memory at all.
        exits = _policy(read(exits=1)).exits_in_time(peak.latency_ms)
    checkpoint = read(exits=exits)
    policy = _policy(checkpoint)
    policy.set_budget(checkpoint.budget if peak is None else peak)
    return policy


def _policy(checkpoint: Checkpoint) -> DeerPolicy:
    if checkpoint.untrained:
        raise CheckpointError(
            f"policy {checkpoint.name} has action heads with initial values only (it was imported from a "
            "release without heads) and would move the arm at random; train it first"
        )
    return DeerPolicy(
        checkpoint.model,
        checkpoint.tokenizer,
        checkpoint.calibration,
        details=checkpoint.provenance,
        weights_sha256=checkpoint.sha256,
        skills=checkpoint.skills,
        name=checkpoint.name,
    )


@contextmanager
def _errors_explained(path: Path) -> Iterator[None]:
    """Turns whatever a damaged or foreign file leads to into a CheckpointError."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{path} does not fit this version: {error}") from error
    except DeerError:
        raise
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} can't be read ({error}); it is damaged or not a checkpoint: get it again"
        ) from error


def _config(path: Path, metadata: dict[str, str]) -> DeerConfig:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {metadata.get('format')!r}; only {FORMAT} can be read: convert it or train again"
        )
    return DeerConfig.from_dict(json.loads(metadata["config"]))


def _check_names(path: Path, present: set[str], wanted: dict[str, torch.Tensor], config: DeerConfig) -> None:
    with torch.device("meta"):
        known = set(DeerModel(config).state_dict()) | {CALIBRATION + name for name in CALIBRATION_TENSORS}
    present = {name for name in present if not name.startswith(SKILLS)}
    missing, unexpected = sorted(set(wanted) - present), sorted(present - known)
    for what, names in (("lacks", missing), ("has unexpected", unexpected)):
        if names:
            raise CheckpointError(
                f"{path} {what} tensors {listed(names)}; it does not fit its configuration: get it again"
            )


def _calibration(path: Path, file: Any, metadata: dict[str, str], config: DeerConfig) -> Calibration | None:
    if "calibration" not in metadata:
        return None
    described = json.loads(metadata["calibration"])
    recorded = {
        name: file.get_tensor(CALIBRATION + name)
        for name in CALIBRATION_TENSORS
        if CALIBRATION + name in set(file.keys())
    }
    exits = len(recorded["values"])
    if exits != len(config.language.exit_layers):
        raise CheckpointError(f"{path}: criterion values are for {exits} exits; calibrate the policy again")
    tuned = tuple(Tuned(item["average_llm_gmac"], tuple(item["thresholds"])) for item in described.get("tuned", ()))
    paced = tuple((float(asked), float(solved)) for asked, solved in described.get("paced", ()))
    predicted = None
    if "predicted" in described:
        fitted = described["predicted"]
        parts = {name: tuple(fitted[name]) for name in ("mean", "scale", "weight")}
        predicted = PredictedDistance(**parts, intercept=fitted["intercept"])
    return Calibration(
        criterion=described["criterion"],
        source=described["source"],
        tuned=tuned,
        paced=paced,
        predicted=predicted,
        **recorded,
    )


def _skills(file: Any, metadata: dict[str, str]) -> SkillRecogniser | None:
    if SKILLS_DESCRIBED not in metadata:
        return None
    weights = {name.removeprefix(SKILLS): file.get_tensor(name) for name in file.keys() if name.startswith(SKILLS)}  # noqa: SIM118
    return SkillRecogniser.from_json(metadata[SKILLS_DESCRIBED], weights)
