"""Small files laid out as the releases are: names, settings and extras of DeeR and OpenFlamingo checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file

from deer_policies.deer.release_config import Heads

DIM, VISION, HIDDEN, LAYERS, EXITS, WORDS = 32, 16, 12, 4, 2, 20
OWN_SIZE = Heads(language=4, vision=2)
SETTINGS: dict[str, Any] = {
    "epoch": 7,
    "head_type": "deterministic",
    "early_exit_layer": LAYERS - 1,
    "multi_exit": True,
    "share_exit": False,
    "exit_interval": 2,
    "exit_dropout": 0.4,
    "lstm_dropout": 0.3,
    "dropout_mode": "layerwise",
    "mlp_layernorm": True,
    "lstm_layernorm": True,
    "mlp_num_hidden_layers": 2,
    "lstm_num_layers": 4,
    "pooling": "max",
    "precision": "amp",
}


def perceiver() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"perceiver.latents": (64, VISION)}
    shapes |= {f"perceiver.norm.{kind}": (VISION,) for kind in ("weight", "bias")}
    for layer in range(6):
        at = f"perceiver.layers.{layer}."
        norms = ("0.norm_media", "0.norm_latents", "1.0")
        shapes |= {f"{at}{norm}.{kind}": (VISION,) for norm in norms for kind in ("weight", "bias")}
        shapes |= {at + "0.to_q.weight": (512, VISION), at + "0.to_kv.weight": (1024, VISION)}
        shapes |= {at + "0.to_out.weight": (VISION, 512)}
        shapes |= {at + "1.1.weight": (4 * VISION, VISION), at + "1.3.weight": (VISION, 4 * VISION)}
    return shapes


def cross_attention() -> dict[str, tuple[int, ...]]:
    return {
        "attn_gate": (1,),
        "ff_gate": (1,),
        "attn.norm.weight": (DIM,),
        "attn.norm.bias": (DIM,),
        "attn.to_q.weight": (512, DIM),
        "attn.to_kv.weight": (1024, VISION),
        "attn.to_out.weight": (DIM, 512),
        "ff.0.weight": (DIM,),
        "ff.0.bias": (DIM,),
        "ff.1.weight": (4 * DIM, DIM),
        "ff.3.weight": (DIM, 4 * DIM),
    }


def decoder_block(nine: bool) -> dict[str, tuple[int, ...]]:
    shapes = {"attn.Wqkv.weight": (3 * DIM, DIM), "attn.out_proj.weight": (DIM, DIM)}
    if nine:
        shapes |= {"norm_1.weight": (DIM,), "norm_2.weight": (DIM,)}
        return shapes | {"ffn.up_proj.weight": (4 * DIM, DIM), "ffn.down_proj.weight": (DIM, 4 * DIM)}
    shapes |= dict.fromkeys(("ln_1.weight", "ln_2.weight", "attn.q_ln.weight", "attn.k_ln.weight"), (DIM,))
    return shapes | {"mlp.mlp_up.weight": (4 * DIM, DIM), "mlp.mlp_down.weight": (DIM, 4 * DIM)}


def action_head() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(4):
        lstm, norm = f"rnn.layers.{3 * layer}.", f"rnn.layers.{3 * layer + 1}."
        shapes |= {lstm + "weight_ih_l0": (4 * HIDDEN, HIDDEN if layer else DIM)}
        shapes |= {lstm + "weight_hh_l0": (4 * HIDDEN, HIDDEN)}
        shapes |= {lstm + "bias_ih_l0": (4 * HIDDEN,), lstm + "bias_hh_l0": (4 * HIDDEN,)}
        shapes |= {norm + "weight": (HIDDEN,), norm + "bias": (HIDDEN,)}
    for network, outputs in (("actions", 6), ("gripper", 1)):
        for linear, (rows, columns) in {1: (1024, HIDDEN), 5: (512, 1024), 9: (outputs, 512)}.items():
            shapes |= {f"{network}.mlp.{linear}.weight": (rows, columns), f"{network}.mlp.{linear}.bias": (rows,)}
            if linear < 9:
                shapes |= {f"{network}.mlp.{linear + 1}.{kind}": (rows,) for kind in ("weight", "bias")}
    return shapes


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def prefixed(prefix: str, shapes: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: shape for name, shape in shapes.items()}


def deer_state(nine: bool = False) -> dict[str, torch.Tensor]:
    """Parameters as get_checkpoint leaves them: frozen blocks and cross-attention under their second names."""
    shapes = perceiver() | {"lang_encoder.transformer.wte.weight": (WORDS + 4, DIM)}
    for layer in range(LAYERS):
        shapes |= prefixed(f"lang_encoder.old_decoder_blocks.{layer}.", decoder_block(nine))
        if not nine or layer == 3:
            at = f"lang_encoder.transformer.blocks.{layer}.gated_cross_attn_layer."
            shapes |= prefixed(at, cross_attention())
    for head in ("lm_head", "extra_exit", *(f"lm_exit_modules.{k}" for k in range(EXITS - 1))):
        shapes |= prefixed(head + ".", action_head())
    state = drawn(shapes, 0)
    for name in list(state):
        if ".gated_cross_attn_layer." in name:
            alias = name.replace("transformer.blocks", "gated_cross_attn_layers")
            state[alias.replace(".gated_cross_attn_layer.", ".")] = state[name]
    return prefixed("module.", state)


def deer_file(path: Path, state: dict[str, torch.Tensor] | None = None, **settings: Any) -> Path:
    """A training checkpoint with optimizer states and the tuple that a stray comma makes; a setting ... is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {name: value for name, value in (SETTINGS | settings).items() if value is not ...}
    saved["model_state_dict"] = deer_state() if state is None else state
    saved["optimizer_state_dict"] = {"state": {0: {"step": 3, "exp_avg": torch.zeros(5)}}, "param_groups": []}
    saved["lr_scheduler_state_dict"] = {"lr_lambdas": [None], "_last_lr": [1e-4]}
    saved["extra_optimizer_state_dict"] = ({"state": {}, "param_groups": []},)
    torch.save(saved, path)
    return path


def openflamingo_file(path: Path, nine: bool = False) -> Path:
    """No prefix, no heads, cross-attention for more layers than DeeR keeps."""
    shapes = perceiver() | {"lang_encoder.transformer.wte.weight": (WORDS + 4, DIM)}
    for layer in range(2 * LAYERS):
        if not nine or layer % 4 == 3:
            at = f"lang_encoder.transformer.blocks.{layer}.gated_cross_attn_layer."
            shapes |= prefixed(at, cross_attention())
    torch.save(drawn(shapes, 1), path)
    return path


def mpt_folder(folder: Path, nine: bool = False, shards: int = 1, safetensors: bool = False) -> Path:
    """A Hugging Face folder of the language model, twice as deep as what is kept, with a padded embedding table."""
    folder.mkdir()
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (WORDS + 30, DIM)}
    for layer in range(2 * LAYERS):
        shapes |= prefixed(f"transformer.blocks.{layer}.", decoder_block(nine))
    shapes |= {f"transformer.{'norm_f' if nine else 'ln_f'}.weight": (DIM,)}
    state = drawn(shapes, 2)
    write, stem, end = (save_file, "model", "safetensors") if safetensors else (torch.save, "pytorch_model", "bin")
    if shards == 1:
        write(state, folder / f"{stem}.{end}")
        return folder
    names, weight_map = list(state), {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05d}-of-{shards:05d}.{end}"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        weight_map |= dict.fromkeys(part, file)
        write({name: state[name] for name in part}, folder / file)
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def clip_file(path: Path) -> Path:
    """open_clip's state: the vision tower, and the text tower that nothing here needs."""
    shapes = {"visual.conv1.weight": (VISION, 3, 14, 14), "visual.class_embedding": (VISION,)}
    shapes |= {"visual.positional_embedding": (5, VISION), "visual.proj": (VISION, 8), "text_projection": (8, 8)}
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"visual.{norm}.{kind}": (VISION,) for kind in ("weight", "bias")}
    for layer in range(2):
        at = f"visual.transformer.resblocks.{layer}."
        shapes |= {f"{at}ln_{k}.{kind}": (VISION,) for k in (1, 2) for kind in ("weight", "bias")}
        shapes |= {at + "attn.in_proj_weight": (3 * VISION, VISION), at + "attn.in_proj_bias": (3 * VISION,)}
        shapes |= {at + "attn.out_proj.weight": (VISION, VISION), at + "attn.out_proj.bias": (VISION,)}
        shapes |= {at + "mlp.c_fc.weight": (4 * VISION, VISION), at + "mlp.c_fc.bias": (4 * VISION,)}
        shapes |= {at + "mlp.c_proj.weight": (VISION, 4 * VISION), at + "mlp.c_proj.bias": (VISION,)}
    torch.save(drawn(shapes, 3) | {"logit_scale": torch.tensor(4.6)}, path)
    return path


def tokenizer_file(path: Path, size: int = WORDS) -> Path:
    """A vocabulary like GPT-NeoX-20B's: the end token has id 0, runs of spaces are added tokens."""
    words = ["<|endoftext|>", "<unk>", *["open", "close", "push", "the", "drawer", "slider", "to", "left", "right"]]
    words += [f"word{number}" for number in range(size - len(words))]
    core = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    core.add_tokens(["  "])
    core.save(str(path))
    return path
