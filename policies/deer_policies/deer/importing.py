"""Releases of OpenFlamingo and DeeR become checkpoints: weights, configuration, tokenizer and criterion values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tokenizers
import torch

from deer_policies.deer.action_head import ActionHead
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import AUXILIARY, Checkpoint
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.official import Parameter, name_in_release, renamed
from deer_policies.deer.presets import preset
from deer_policies.deer.release_config import Heads, ReleaseSettings, deer_settings, release_config
from deer_policies.deer.release_files import ReleaseFiles
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import END_OF_CHUNK, IMAGE, PAD, Tokenizer
from deer_policies.errors import CheckpointError, ConfigError, listed

BASES = ("openflamingo-3b", "openflamingo-9b")
VALUES_NOTE = (
    "criterion values as the official code stored them: from the first tenth of the windows of its validation split "
    "(environment D for every published release), with random shifts of the images still on, and at history lengths 5 "
    "to 10 from a zero state where a subtask lasts up to 360 steps; the file does not tell which data, distance and "
    "precision they are for. Calibrate anew for budgets that hold."
)
_HEADS = ("extra_exit.", "lm_head.", "lm_exit_modules.")
_MPT_BLOCK = re.compile(r"(?:module\.)?transformer\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class ImportPlan:
    """What to import, from where. A source is a path, or on Hugging Face 'REPOSITORY:FILE' (a folder: 'REPOSITORY').

    Attributes:
        release: .pt or .pth file of DeeR or OpenFlamingo.
        base: one of `BASES`; gives what can't be read from the release.
        tokenizer: tokenizer.json of GPT-NeoX-20B, or a folder or repository that holds one.
        clip: state of open_clip's ViT-L-14 'openai'; only for a release without vision weights.
        mpt: folder of MPT weights; only for a release without decoder blocks (OpenFlamingo).
        heads: numbers of attention heads, for a model of another size than the base.
        layers, exit_interval: language model layers to keep, and an exit after every so many; only for OpenFlamingo,
            the base's by default. A DeeR release knows its own.
        seed: of the action heads that OpenFlamingo lacks.
    """

    release: str
    base: str
    tokenizer: str
    clip: str | None = None
    mpt: str | None = None
    heads: Heads = field(default_factory=Heads)
    layers: int | None = None
    exit_interval: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise ConfigError(f"there is no base {self.base!r}; choose one of {', '.join(BASES)}")


def import_release(plan: ImportPlan) -> Checkpoint:
    """The checkpoint of a release. Its tensors stay on disk, memory-mapped, until they are used.

    Raises:
        CheckpointError: if a file can't be had or read, is of an unsupported variant, or if a tensor is missing,
            unexpected or misshapen; the message names it as the release does.
        ConfigError: if the release contradicts the base.
    """
    base = preset(plan.base)
    files = ReleaseFiles()
    saved = files.tensors("release", plan.release)
    weights = {name.removeprefix("module."): value for name, value in _model_state(saved).items()}
    _check_are_tensors(weights)
    trained = "multi_exit" in saved or any(name.startswith(_HEADS) for name in weights)
    settings = _settings(plan, base, saved, weights, trained)
    weights |= _language_model(plan, files, weights, settings.layers)
    weights |= _vision(plan, files, weights)
    exits = len(replace(base.language, layers=settings.layers, exit_interval=settings.exit_interval).exit_layers)
    state = renamed(weights, exits)
    if not trained:
        # OpenFlamingo has cross-attention for every layer of its language model.
        state = {name: parameter for name, parameter in state.items() if _layer(name) < settings.layers}
    config = release_config({name: item.tensor.shape for name, item in state.items()}, settings, base, plan.heads)
    tensors = _checked(state, config, trained)
    if not trained:
        tensors |= _initial_heads(config, plan.seed)
    tokenizer = release_tokenizer(files.text("tokenizer", plan.tokenizer, "tokenizer.json"), config)
    calibration, notes = _calibration(saved, exits)
    provenance = {
        "imported_from": "DeeR" if trained else "OpenFlamingo",
        "base": plan.base,
        "files": files.read,
        "settings": {name: value for name, value in saved.items() if isinstance(value, bool | int | float | str)},
        "notes": notes if trained else [f"action heads hold initial values, drawn with seed {plan.seed}"],
    }
    model = DeerModel.from_weights(config, tensors)
    return Checkpoint(model, tokenizer, calibration, provenance=provenance, untrained=not trained)


def _model_state(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a file: of a training checkpoint, or a bare state."""
    for name in ("model_state_dict", "state_dict"):
        if isinstance(saved.get(name), Mapping):
            return saved[name]
    return saved


def _check_are_tensors(weights: Mapping[str, Any]) -> None:
    others = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if others or not weights:
        raise CheckpointError(
            f"the release holds no model ({listed(others) or 'nothing'} instead of tensors); "
            "give an OpenFlamingo .pt or a DeeR .pth"
        )


def _settings(
    plan: ImportPlan, base: DeerConfig, saved: Mapping[str, Any], weights: Mapping[str, Any], trained: bool
) -> ReleaseSettings:
    if not trained:
        return ReleaseSettings(
            base.language.layers if plan.layers is None else plan.layers,
            base.language.exit_interval if plan.exit_interval is None else plan.exit_interval,
        )
    if plan.layers is not None or plan.exit_interval is not None:
        raise ConfigError("a DeeR release knows its own layers and exits; leave --layers and --exit-interval out")
    return deer_settings(saved, weights)


def _language_model(
    plan: ImportPlan, files: ReleaseFiles, weights: Mapping[str, torch.Tensor], layers: int
) -> dict[str, torch.Tensor]:
    own = any(".old_decoder_blocks." in name or ".decoder_layer." in name for name in weights)
    _check_source("language model", "--mpt", plan.mpt, own)
    if plan.mpt is None:
        return {}

    def wanted(name: str) -> bool:
        block = _MPT_BLOCK.match(name)
        return block is not None and int(block[1]) < layers

    blocks = files.model_folder("mpt", plan.mpt, wanted)
    return {
        _MPT_BLOCK.sub(r"lang_encoder.transformer.blocks.\1.decoder_layer.", name): tensor
        for name, tensor in blocks.items()
    }


def _vision(plan: ImportPlan, files: ReleaseFiles, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    own = any(name.startswith("vision_encoder.visual.") for name in weights)
    _check_source("vision encoder", "--clip", plan.clip, own)
    if plan.clip is None:
        return {}
    state = _model_state(files.tensors("clip", plan.clip))
    names = {name: re.sub(r"^(?:module\.)?(?=visual\.)", "vision_encoder.", name) for name in state}
    found = {ours: state[name] for name, ours in names.items() if ours.startswith("vision_encoder.visual.")}
    if not found:
        raise CheckpointError(
            f"{plan.clip} holds no tensors visual.*; give the state_dict of open_clip's ViT-L-14 with weights 'openai'"
        )
    _check_are_tensors(found)
    return found


def _check_source(what: str, option: str, source: str | None, own: bool) -> None:
    if own and source is not None:
        raise ConfigError(f"the release holds its own {what}; leave {option} out")
    if not own and source is None:
        raise CheckpointError(f"the release holds no {what}; give it with {option} (docs/weights.md says where from)")


def _layer(name: str) -> int:
    layer = re.match(r"layers\.(\d+)\.", name)
    return -1 if layer is None else int(layer[1])


def _checked(state: Mapping[str, Parameter], config: DeerConfig, trained: bool) -> dict[str, torch.Tensor]:
    """The tensors, if they are exactly those that the configuration asks for."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in DeerModel(config).state_dict().items()}
    if not trained:
        wanted = {name: shape for name, shape in wanted.items() if not _is_head(name)}
    misshapen = [
        f"{item.name} {tuple(item.tensor.shape)}, expected {tuple(wanted[name])}"
        for name, item in state.items()
        if name in wanted and item.tensor.shape != wanted[name]
    ]
    for what, names in (
        ("lacks tensors", [name_in_release(name, config) for name in wanted if name not in state]),
        ("has unexpected tensors", [item.name for name, item in state.items() if name not in wanted]),
        ("has misshapen tensors", misshapen),
    ):
        if names:
            raise CheckpointError(f"the release {what} {listed(names)}; get it again, or check what it is")
    return {name: item.tensor for name, item in state.items()}


def _is_head(name: str) -> bool:
    return name.startswith(("head.", AUXILIARY))


def _initial_heads(config: DeerConfig, seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = [ActionHead(config.language.dim, config.head) for _ in range(1 + len(config.language.exit_layers))]
    places = ["head", *(f"{AUXILIARY}{index}" for index in range(len(heads) - 1))]
    named = zip(places, heads, strict=True)
    return {f"{place}.{name}": tensor for place, head in named for name, tensor in head.state_dict().items()}


def release_tokenizer(definition: str, config: DeerConfig) -> Tokenizer:
    """GPT-NeoX-20B's tokenizer with the tokens that OpenFlamingo adds, in its order, so that their ids are the same.

    Args:
        definition: content of tokenizer.json.
        config: of the model.

    Raises:
        CheckpointError: if the definition can't be read, or has more ids than the model's embedding has rows.
    """
    try:
        core = tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"the tokenizer can't be read ({error}); give a tokenizer.json") from error
    core.add_special_tokens([END_OF_CHUNK, IMAGE])
    core.add_special_tokens([PAD])
    tokenizer = Tokenizer(core.to_str(), config.language.max_tokens, config.lowercase)
    if tokenizer.vocabulary > config.language.vocabulary:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocabulary} ids with OpenFlamingo's, but the release's embedding only "
            f"{config.language.vocabulary} rows; give the tokenizer that it was trained with"
        )
    return tokenizer


def _calibration(saved: Mapping[str, Any], exits: int) -> tuple[Calibration | None, list[str]]:
    """Criterion values of a DeeR checkpoint, if it has usable ones, and what is to be known of them."""
    values = saved.get("values")
    if values is None:
        return None, ["the release holds no criterion values"]
    fits = isinstance(values, torch.Tensor) and values.ndim == 2 and values.shape[0] == exits and values.shape[1] > 0
    if not fits or not bool(torch.isfinite(values).all()):
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        return None, [
            f"criterion values ({shape}) were left out: finite numbers for {exits} exits are needed; the official "
            "evaluation writes fewer into the file when it runs with fewer layers"
        ]
    return Calibration(values.to(torch.float32), "action", {"origin": VALUES_NOTE}), [VALUES_NOTE]
