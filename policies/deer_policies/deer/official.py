"""Names of OpenFlamingo, CLIP and DeeR checkpoints, and how they map to the names here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from deer_policies.deer.config import DeerConfig
from deer_policies.errors import CheckpointError

_BLOCK = r"lang_encoder\.transformer\.blocks\.(\d+)\.decoder_layer\."
_CROSS = r"lang_encoder\.transformer\.blocks\.(\d+)\.gated_cross_attn_layer\."
_VISUAL = r"vision_encoder\.visual\."
_RESBLOCK = _VISUAL + r"transformer\.resblocks\.(\d+)\."
_PERCEIVER = r"perceiver\.layers\.(\d+)\."

# The first pattern that matches the whole name decides. MPT-1B and MPT-7B name the same layers differently.
_RULES: tuple[tuple[str, str], ...] = (
    (r"perceiver\.latents", r"resampler.latents"),
    (r"perceiver\.norm\.(weight|bias)", r"resampler.norm.\1"),
    (_PERCEIVER + r"0\.norm_media\.(weight|bias)", r"resampler.layers.\1.norm_tokens.\2"),
    (_PERCEIVER + r"0\.norm_latents\.(weight|bias)", r"resampler.layers.\1.norm_latents.\2"),
    (_PERCEIVER + r"0\.(to_q|to_kv|to_out)\.weight", r"resampler.layers.\1.\2.weight"),
    (_PERCEIVER + r"1\.0\.(weight|bias)", r"resampler.layers.\1.feed_forward.norm.\2"),
    (_PERCEIVER + r"1\.1\.weight", r"resampler.layers.\1.feed_forward.up.weight"),
    (_PERCEIVER + r"1\.3\.weight", r"resampler.layers.\1.feed_forward.down.weight"),
    (r"lang_encoder\.transformer\.wte\.weight", r"embedding.weight"),
    (_CROSS + r"attn_gate", r"layers.\1.cross_attention.attention_gate"),
    (_CROSS + r"ff_gate", r"layers.\1.cross_attention.feed_forward_gate"),
    (_CROSS + r"attn\.norm\.(weight|bias)", r"layers.\1.cross_attention.norm.\2"),
    (_CROSS + r"attn\.(to_q|to_kv|to_out)\.weight", r"layers.\1.cross_attention.\2.weight"),
    (_CROSS + r"ff\.0\.(weight|bias)", r"layers.\1.cross_attention.feed_forward.norm.\2"),
    (_CROSS + r"ff\.1\.weight", r"layers.\1.cross_attention.feed_forward.up.weight"),
    (_CROSS + r"ff\.3\.weight", r"layers.\1.cross_attention.feed_forward.down.weight"),
    (_BLOCK + r"(?:ln|norm)_(1|2)\.weight", r"layers.\1.block.norm_\2.weight"),
    (_BLOCK + r"attn\.(q|k)_ln\.weight", r"layers.\1.block.\2_norm.weight"),
    (_BLOCK + r"attn\.Wqkv\.weight", r"layers.\1.block.qkv.weight"),
    (_BLOCK + r"attn\.out_proj\.weight", r"layers.\1.block.out.weight"),
    (_BLOCK + r"(?:mlp\.mlp_up|ffn\.up_proj)\.weight", r"layers.\1.block.up.weight"),
    (_BLOCK + r"(?:mlp\.mlp_down|ffn\.down_proj)\.weight", r"layers.\1.block.down.weight"),
    (_VISUAL + r"conv1\.weight", r"vision.stem.weight"),
    (_VISUAL + r"class_embedding", r"vision.class_embedding"),
    (_VISUAL + r"positional_embedding", r"vision.position_embedding"),
    (_VISUAL + r"ln_pre\.(weight|bias)", r"vision.norm_in.\1"),
    (_RESBLOCK + r"ln_(1|2)\.(weight|bias)", r"vision.blocks.\1.norm_\2.\3"),
    (_RESBLOCK + r"attn\.in_proj_(weight|bias)", r"vision.blocks.\1.qkv.\2"),
    (_RESBLOCK + r"attn\.out_proj\.(weight|bias)", r"vision.blocks.\1.out.\2"),
    (_RESBLOCK + r"mlp\.c_fc\.(weight|bias)", r"vision.blocks.\1.up.\2"),
    (_RESBLOCK + r"mlp\.c_proj\.(weight|bias)", r"vision.blocks.\1.down.\2"),
)

# CLIP's text tower and projection, and the decoder's final norm: no exit reads them.
_UNUSED = re.compile(
    r"vision_encoder\.(?!visual\.).*|"
    + _VISUAL
    + r"(?:ln_post\..*|proj)|lang_encoder\.transformer\.(?:ln_f|norm_f)\..*"
)
_HEAD = re.compile(r"(lm_head|extra_exit|lm_exit_modules\.(\d+))\.(.+)")


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
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    raise CheckpointError(f"the official checkpoint holds an unknown parameter {name}; its layout is not supported")


def _head_name(rest: str, name: str) -> str:
    network = re.fullmatch(r"(actions|gripper)\.mlp\.(\d+)\.(weight|bias)", rest)
    if network:
        return f"{'pose' if network[1] == 'actions' else 'gripper'}.{network[2]}.{network[3]}"
    recurrent = re.fullmatch(r"rnn\.layers\.(\d+)\.(\w+)", rest)
    if recurrent:
        # LSTM, LayerNorm and dropout take turns in one list.
        layer, kind = divmod(int(recurrent[1]), 3)
        if kind < 2:
            return f"{('lstm', 'norms')[kind]}.{layer}.{recurrent[2]}"
    raise CheckpointError(
        f"the official checkpoint holds an unknown head parameter {name}; its layout is not supported"
    )


def from_official(weights: Mapping[str, torch.Tensor], config: DeerConfig) -> dict[str, torch.Tensor]:
    """State of a `DeerModel` from official parameters; layers above the last exit are left out.

    Args:
        weights: of a DeeR model, official names.
        config: which layers and exits to keep.
    """
    language = config.language
    state = {}
    for name, tensor in weights.items():
        ours = official_name(name, len(language.exit_layers))
        if ours is None:
            continue
        layer = re.match(r"layers\.(\d+)\.", ours)
        if layer is None or int(layer[1]) < language.layers:
            state[ours] = tensor
    return state
