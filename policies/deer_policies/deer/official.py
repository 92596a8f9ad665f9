"""Names of OpenFlamingo, CLIP and DeeR checkpoints, and how they map to the names here and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from deer_policies.deer.config import DeerConfig
from deer_policies.errors import CheckpointError, listed

_MEANING = {"N": r"\d+", "M": "1|2", "P": "weight|bias", "T": "to_q|to_kv|to_out", "Q": "q|k"}
_PERCEIVER = "perceiver.layers.{N}."
_RESAMPLER = "resampler.layers.{N}."
_CROSS = "lang_encoder.transformer.blocks.{N}.gated_cross_attn_layer."
_OUR_CROSS = "layers.{N}.cross_attention."
_BLOCK = "lang_encoder.transformer.blocks.{N}.decoder_layer."
_OUR_BLOCK = "layers.{N}.block."
_VISUAL = "vision_encoder.visual."
_RESBLOCK = _VISUAL + "transformer.resblocks.{N}."
_OUR_RESBLOCK = "vision.blocks.{N}."

# Official name, our name. Where two official names lead to one of ours, the first is MPT-1B's and the second MPT-7B's.
_TEMPLATES: tuple[tuple[str, str], ...] = (
    ("perceiver.latents", "resampler.latents"),
    ("perceiver.norm.{P}", "resampler.norm.{P}"),
    (_PERCEIVER + "0.norm_media.{P}", _RESAMPLER + "norm_tokens.{P}"),
    (_PERCEIVER + "0.norm_latents.{P}", _RESAMPLER + "norm_latents.{P}"),
    (_PERCEIVER + "0.{T}.weight", _RESAMPLER + "{T}.weight"),
    (_PERCEIVER + "1.0.{P}", _RESAMPLER + "feed_forward.norm.{P}"),
    (_PERCEIVER + "1.1.weight", _RESAMPLER + "feed_forward.up.weight"),
    (_PERCEIVER + "1.3.weight", _RESAMPLER + "feed_forward.down.weight"),
    ("lang_encoder.transformer.wte.weight", "embedding.weight"),
    (_CROSS + "attn_gate", _OUR_CROSS + "attention_gate"),
    (_CROSS + "ff_gate", _OUR_CROSS + "feed_forward_gate"),
    (_CROSS + "attn.norm.{P}", _OUR_CROSS + "norm.{P}"),
    (_CROSS + "attn.{T}.weight", _OUR_CROSS + "{T}.weight"),
    (_CROSS + "ff.0.{P}", _OUR_CROSS + "feed_forward.norm.{P}"),
    (_CROSS + "ff.1.weight", _OUR_CROSS + "feed_forward.up.weight"),
    (_CROSS + "ff.3.weight", _OUR_CROSS + "feed_forward.down.weight"),
    (_BLOCK + "ln_{M}.weight", _OUR_BLOCK + "norm_{M}.weight"),
    (_BLOCK + "norm_{M}.weight", _OUR_BLOCK + "norm_{M}.weight"),
    (_BLOCK + "attn.{Q}_ln.weight", _OUR_BLOCK + "{Q}_norm.weight"),
    (_BLOCK + "attn.Wqkv.weight", _OUR_BLOCK + "qkv.weight"),
    (_BLOCK + "attn.out_proj.weight", _OUR_BLOCK + "out.weight"),
    (_BLOCK + "mlp.mlp_up.weight", _OUR_BLOCK + "up.weight"),
    (_BLOCK + "ffn.up_proj.weight", _OUR_BLOCK + "up.weight"),
    (_BLOCK + "mlp.mlp_down.weight", _OUR_BLOCK + "down.weight"),
    (_BLOCK + "ffn.down_proj.weight", _OUR_BLOCK + "down.weight"),
    (_VISUAL + "conv1.weight", "vision.stem.weight"),
    (_VISUAL + "class_embedding", "vision.class_embedding"),
    (_VISUAL + "positional_embedding", "vision.position_embedding"),
    (_VISUAL + "ln_pre.{P}", "vision.norm_in.{P}"),
    (_RESBLOCK + "ln_{M}.{P}", _OUR_RESBLOCK + "norm_{M}.{P}"),
    (_RESBLOCK + "attn.in_proj_{P}", _OUR_RESBLOCK + "qkv.{P}"),
    (_RESBLOCK + "attn.out_proj.{P}", _OUR_RESBLOCK + "out.{P}"),
    (_RESBLOCK + "mlp.c_fc.{P}", _OUR_RESBLOCK + "up.{P}"),
    (_RESBLOCK + "mlp.c_proj.{P}", _OUR_RESBLOCK + "down.{P}"),
)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w)\\}", lambda slot: f"(?P<{slot[1]}>{_MEANING[slot[1]]})", re.escape(template)))


_RULES = tuple((_pattern(official), official, _pattern(ours), ours) for official, ours in _TEMPLATES)

# CLIP's text tower and projection, and the decoder's final norm: no exit reads them.
_UNUSED = re.compile(
    r"vision_encoder\.(?!visual\.).*|vision_encoder\.visual\.(?:ln_post\..*|proj)"
    r"|lang_encoder\.transformer\.(?:ln_f|norm_f)\..*"
)
_HEAD = re.compile(r"(lm_head|extra_exit|lm_exit_modules\.(\d+))\.(.+)")
_OUR_HEAD = re.compile(r"(?:head|auxiliary_heads\.(\d+))\.(lstm|norms|pose|gripper)\.(\d+)\.(\w+)")


def official_name(name: str, exits: int) -> str | None:
    """Our name of an official parameter, or None for one that no exit needs.

    Args:
        name: with or without the 'module.' of distributed training.
        exits: how many there are; the official model names the last auxiliary head differently from the others.

    Raises:
        CheckpointError: if the name is unknown.
    """
    name = name.removeprefix("module.")
    # DeeR's checkpoints keep the frozen decoder blocks and a second copy of the cross-attention under these names.
    name = re.sub(
        r"^lang_encoder\.old_decoder_blocks\.(\d+)\.", r"lang_encoder.transformer.blocks.\1.decoder_layer.", name
    )
    name = re.sub(
        r"^lang_encoder\.gated_cross_attn_layers\.(\d+)\.",
        r"lang_encoder.transformer.blocks.\1.gated_cross_attn_layer.",
        name,
    )
    if _UNUSED.fullmatch(name):
        return None
    head = _HEAD.fullmatch(name)
    if head:
        owner, position, rest = head.groups()
        place = "head" if owner == "extra_exit" else f"auxiliary_heads.{position if position else exits - 1}"
        return f"{place}.{_head_name(rest, name)}"
    for pattern, _, _, ours in _RULES:
        match = pattern.fullmatch(name)
        if match:
            return ours.format_map(match.groupdict())
    raise CheckpointError(f"the official checkpoint holds an unknown parameter {name}; its layout is not supported")


def _head_name(rest: str, name: str) -> str:
    network = re.fullmatch(r"(actions|gripper)\.mlp\.(\d+)\.(weight|bias)", rest)
    # Dropout, linear layer, LayerNorm and ReLU take turns; where dropout is not layerwise, the numbers are others.
    if network and int(network[2]) % 4 in (1, 2):
        return f"{'pose' if network[1] == 'actions' else 'gripper'}.{network[2]}.{network[3]}"
    recurrent = re.fullmatch(r"rnn\.layers\.(\d+)\.(\w+)", rest)
    if recurrent:
        # LSTM, LayerNorm and dropout take turns in one list.
        layer, kind = divmod(int(recurrent[1]), 3)
        if kind < 2:
            return f"{('lstm', 'norms')[kind]}.{layer}.{recurrent[2]}"
    raise CheckpointError(
        f"the official checkpoint holds an unknown head parameter {name}; supported are heads with LayerNorm and "
        "dropout mode 'layerwise'"
    )


def name_in_release(ours: str, config: DeerConfig) -> str:
    """What a DeeR release calls a parameter of ours, without 'module.': for messages about what is missing from it."""
    head = _OUR_HEAD.fullmatch(ours)
    if head:
        position, part, index, rest = head.groups()
        last = position == str(len(config.language.exit_layers) - 1)
        owner = "extra_exit" if position is None else "lm_head" if last else f"lm_exit_modules.{position}"
        if part in ("lstm", "norms"):
            return f"{owner}.rnn.layers.{3 * int(index) + (part == 'norms')}.{rest}"
        return f"{owner}.{'actions' if part == 'pose' else part}.mlp.{index}.{rest}"
    names = [
        official.format_map(match.groupdict())
        for _, official, pattern, _ in _RULES
        if (match := pattern.fullmatch(ours))
    ]
    if not names:
        return ours
    name = names[0 if config.language.qk_norm else -1]
    return re.sub(r"transformer\.blocks\.(\d+)\.decoder_layer\.", r"old_decoder_blocks.\1.", name)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a release: the name that it has there, and its tensor."""

    name: str
    tensor: torch.Tensor


def renamed(weights: Mapping[str, torch.Tensor], exits: int) -> dict[str, Parameter]:
    """Official parameters under our names, without those that no exit needs.

    Raises:
        CheckpointError: if names are unknown, or two names of one parameter hold different values.
    """
    state: dict[str, Parameter] = {}
    unknown = []
    for name, tensor in weights.items():
        try:
            ours = official_name(name, exits)
        except CheckpointError:
            unknown.append(name)
            continue
        if ours is None:
            continue
        other = state.setdefault(ours, Parameter(name, tensor))
        if not _same(other.tensor, tensor):
            raise CheckpointError(
                f"{other.name} and {name} are names of one parameter but hold different values; get the file again"
            )
    if unknown:
        raise CheckpointError(f"the release has unexpected tensors {listed(unknown)}; its layout is not supported")
    return state


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second)


def from_official(weights: Mapping[str, torch.Tensor], config: DeerConfig) -> dict[str, torch.Tensor]:
    """State of a `DeerModel` from official parameters; layers above the last exit are left out.

    Args:
        weights: of a DeeR model, official names.
        config: which layers and exits to keep.
    """
    language = config.language
    return {
        name: parameter.tensor
        for name, parameter in renamed(weights, len(language.exit_layers)).items()
        if (layer := re.match(r"layers\.(\d+)\.", name)) is None or int(layer[1]) < language.layers
    }
