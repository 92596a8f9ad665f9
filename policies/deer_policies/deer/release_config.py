"""The configuration of a released model, from what was saved in it and the shapes of its tensors; never from a name."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from deer_policies.deer.config import DeerConfig, HeadConfig, LanguageConfig, VisionConfig
from deer_policies.errors import CheckpointError, ConfigError

# What a DeeR checkpoint's settings mean when they are absent (the official loader's rule), and the values we can run.
_SUPPORTED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "head_type": ("deterministic", ("deterministic",)),
    "multi_exit": (False, (True,)),
    "share_exit": (False, (False,)),
    "use_layerwise_projection": (False, (False,)),
    "dropout_mode": ("wo_last", ("layerwise",)),
    "mlp_layernorm": (False, (True,)),
    "lstm_layernorm": (False, (True,)),
    "pooling": ("max", ("max",)),
}


@dataclass(frozen=True)
class ReleaseSettings:
    """What the geometry of a release needs beside its tensors.

    Attributes:
        layers: language model layers to keep; the last of them is the last exit.
        exit_interval: an exit after every so many layers.
        lstm_layers, mlp_hidden_layers: of the action heads; None where the release has no heads.
        lstm_dropout, mlp_dropout: that it was trained with.
    """

    layers: int
    exit_interval: int
    lstm_layers: int | None = None
    mlp_hidden_layers: int | None = None
    lstm_dropout: float = 0.0
    mlp_dropout: float = 0.0


def deer_settings(saved: Mapping[str, Any], names: Iterable[str]) -> ReleaseSettings:
    """Settings of a DeeR training checkpoint.

    Args:
        saved: its dictionary.
        names: official names of its parameters.

    Raises:
        CheckpointError: if it is of a variant that is not supported here, naming the setting, or contradicts itself.
    """
    saved = dict(saved)
    # The older name of the setting; the official loader prefers it.
    saved["mlp_layernorm"] = saved.get("layernorm", saved.get("mlp_layernorm", False))
    for name, (default, allowed) in _SUPPORTED.items():
        value = saved.get(name, default)
        if value not in allowed:
            absent = "" if name in saved else " (absent from the file, which means that)"
            raise CheckpointError(
                f"the checkpoint's {name} is {value!r}{absent}; supported is {' or '.join(map(repr, allowed))}: "
                "take another checkpoint"
            )
    blocks = 1 + max((int(block[1]) for name in names if (block := _DECODER_BLOCK.match(name))), default=-1)
    last = _number(saved, "early_exit_layer", -1, minimum=-blocks)
    # A negative number counts from the end, and layers behind the last exit were deleted before it was saved.
    layers = last + 1 if last >= 0 else blocks
    if blocks and layers != blocks:
        raise CheckpointError(
            f"the checkpoint's early_exit_layer is {last}, which means {layers} language model layers, but it holds "
            f"{blocks} of them; get it again"
        )
    return ReleaseSettings(
        layers=layers,
        exit_interval=_number(saved, "exit_interval", 1, minimum=1),
        lstm_layers=_number(saved, "lstm_num_layers", 4, minimum=1),
        mlp_hidden_layers=_number(saved, "mlp_num_hidden_layers", 3, minimum=1),
        lstm_dropout=_fraction(saved, "lstm_dropout"),
        mlp_dropout=_fraction(saved, "exit_dropout"),
    )


_DECODER_BLOCK = re.compile(
    r"(?:module\.)?lang_encoder\.(?:old_decoder_blocks\.|transformer\.blocks\.(?=\d+\.decoder_layer))(\d+)\."
)


def _number(saved: Mapping[str, Any], name: str, default: int, minimum: int) -> int:
    value = saved.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise CheckpointError(f"the checkpoint's {name} is {value!r}; it must be a whole number of at least {minimum}")
    return value


def _fraction(saved: Mapping[str, Any], name: str) -> float:
    value = saved.get(name, 0.0)
    if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise CheckpointError(f"the checkpoint's {name} is {value!r}; it must be in [0, 1)")
    return float(value)


@dataclass(frozen=True)
class Heads:
    """Numbers of attention heads, which no tensor tells; None takes the base's, if the base fits."""

    language: int | None = None
    vision: int | None = None


def release_config(
    shapes: Mapping[str, torch.Size], settings: ReleaseSettings, base: DeerConfig, heads: Heads
) -> DeerConfig:
    """Configuration of a release.

    Args:
        shapes: of its parameters, under our names.
        settings: see `ReleaseSettings`.
        base: gives what neither tensors nor settings tell (attention heads, images, text length).
        heads: for a model of another size than the base.

    Raises:
        ConfigError: if the release contradicts the base.
    """
    language = replace(
        base.language,
        vocabulary=_common(shapes, r"embedding\.weight", 0, base.language.vocabulary),
        dim=_common(shapes, r"layers\.\d+\.block\.norm_[12]\.weight", 0, base.language.dim),
        layers=settings.layers,
        exit_interval=settings.exit_interval,
        qk_norm=any(re.fullmatch(r"layers\.\d+\.block\.[qk]_norm\.weight", name) for name in shapes),
        cross_attention_interval=_interval(shapes, base.language.cross_attention_interval),
        heads=1,
    )
    patch = _common(shapes, r"vision\.stem\.weight", 2, base.vision.patch_size)
    positions = _common(shapes, r"vision\.position_embedding", 0, base.vision.tokens + 1)
    vision = replace(
        base.vision,
        dim=_common(shapes, r"vision\.blocks\.\d+\.norm_[12]\.weight", 0, base.vision.dim),
        patch_size=patch,
        image_size=patch * math.isqrt(positions - 1),
        layers=1 + max(_numbers(shapes, r"vision\.blocks\.(\d+)\..*"), default=base.vision.layers - 1),
        heads=1,
    )
    return replace(
        base,
        preprocess=replace(base.preprocess, image_size=vision.image_size),
        language=_with_heads(
            language, base, "language", ("dim", "qk_norm", "cross_attention_interval"), heads.language
        ),
        vision=_with_heads(vision, base, "vision", ("dim", "patch_size", "image_size", "layers"), heads.vision),
        head=_head_config(shapes, settings, base.head),
    )


def _with_heads(part: Any, base: DeerConfig, name: str, compared: tuple[str, ...], given: int | None) -> Any:
    """The part with its number of attention heads: the base's where the two are of the same size."""
    expected: LanguageConfig | VisionConfig = getattr(base, name)
    differing = [
        f"{field} {getattr(part, field)} (base: {getattr(expected, field)})"
        for field in compared
        if getattr(part, field) != getattr(expected, field)
    ]
    if differing and given is None:
        raise ConfigError(
            f"the release does not fit the base {base.name}: its {name} part has {', '.join(differing)}; choose the "
            f"base that fits, or for a model of another size give its number of attention heads too (--{name}-heads)"
        )
    if not differing and given not in (None, expected.heads):
        raise ConfigError(
            f"{given} attention heads are given for the {name} part, but its size is that of {base.name}, which has "
            f"{expected.heads}; leave --{name}-heads out"
        )
    return replace(part, heads=expected.heads if given is None else given)


def _head_config(shapes: Mapping[str, torch.Size], settings: ReleaseSettings, base: HeadConfig) -> HeadConfig:
    if settings.lstm_layers is None or settings.mlp_hidden_layers is None:
        return base
    owner = r"(?:head|auxiliary_heads\.\d+)\."
    # The network's list holds dropout, linear layer, LayerNorm and ReLU for each hidden size.
    mlp_dims = tuple(
        _common(shapes, owner + rf"(?:pose|gripper)\.(?:{4 * k + 1}|{4 * k + 2})\.bias", 0, 1)
        for k in range(settings.mlp_hidden_layers)
    )
    return replace(
        base,
        lstm_hidden=_common(shapes, owner + r"norms\.\d+\.weight", 0, base.lstm_hidden),
        lstm_layers=settings.lstm_layers,
        mlp_dims=mlp_dims,
        lstm_dropout=settings.lstm_dropout,
        mlp_dropout=settings.mlp_dropout,
        dropout_mode="layerwise",
    )


def _common(shapes: Mapping[str, torch.Size], names: str, axis: int, otherwise: int) -> int:
    """The most frequent size along an axis among the parameters whose whole name matches.

    So a single wrong tensor is not believed, and is found when all are compared with the configuration; the same holds
    for one that is missing, in whose place `otherwise` is taken.
    """
    found = Counter(shape[axis] for name, shape in shapes.items() if re.fullmatch(names, name) and len(shape) > axis)
    return found.most_common(1)[0][0] if found else otherwise


def _numbers(shapes: Mapping[str, torch.Size], names: str) -> list[int]:
    return sorted({int(match[1]) for name in shapes if (match := re.fullmatch(names, name))})


def _interval(shapes: Mapping[str, torch.Size], otherwise: int) -> int:
    """The most frequent distance between layers with cross-attention; the first is one interval after layer -1."""
    layers = _numbers(shapes, r"layers\.(\d+)\.cross_attention\..*")
    gaps = Counter(b - a for a, b in pairwise([-1, *layers]))
    return gaps.most_common(1)[0][0] if gaps else otherwise
