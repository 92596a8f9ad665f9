"""`deer import`: a release of DeeR or OpenFlamingo becomes one checkpoint of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "turn a release of DeeR or OpenFlamingo into a checkpoint"
DTYPES = ("float32", "bfloat16", "float16")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.description = (
        f"{HELP}. Sources are paths, or on Hugging Face REPOSITORY:FILE (for a folder: REPOSITORY). "
        "docs/weights.md says which files there are and where."
    )
    parser.add_argument("release", help="DeeR .pth or OpenFlamingo .pt")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, a .safetensors file")
    parser.add_argument(
        "--base", required=True, help="what the release is built on: openflamingo-3b or openflamingo-9b"
    )
    parser.add_argument(
        "--tokenizer", required=True, help="tokenizer.json of GPT-NeoX-20B, or a folder or repository with one"
    )
    parser.add_argument("--clip", help="state of open_clip's ViT-L-14 'openai'; releases leave the vision encoder out")
    parser.add_argument("--mpt", help="folder of the MPT weights; only for OpenFlamingo, DeeR releases hold theirs")
    parser.add_argument(
        "--layers", type=int, help="language model layers to keep of OpenFlamingo (default: the base's)"
    )
    parser.add_argument(
        "--exit-interval", type=int, help="an exit after every so many layers of OpenFlamingo (default: the base's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the action heads, which OpenFlamingo lacks")
    parser.add_argument("--language-heads", type=int, help="attention heads, for another size than the base's")
    parser.add_argument("--vision-heads", type=int, help="attention heads, for another size than the base's")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights in the checkpoint")
    parser.add_argument(
        "--auxiliary-heads", action="store_true", help="keep the heads of the single exits too, to train on"
    )


def run(arguments: argparse.Namespace) -> int:
    """Imports, writes the checkpoint, and says what is in it."""
    import torch

    from deer_policies.deer.checkpoint import save
    from deer_policies.deer.importing import ImportPlan, import_release
    from deer_policies.deer.release_config import Heads

    plan = ImportPlan(
        release=arguments.release,
        base=arguments.base,
        tokenizer=arguments.tokenizer,
        clip=arguments.clip,
        mpt=arguments.mpt,
        heads=Heads(arguments.language_heads, arguments.vision_heads),
        layers=arguments.layers,
        exit_interval=arguments.exit_interval,
        seed=arguments.seed,
    )
    checkpoint = import_release(plan)
    keep = arguments.auxiliary_heads or checkpoint.untrained
    save(arguments.out, checkpoint, keep, getattr(torch, arguments.dtype))
    language = checkpoint.model.config.language
    print(
        f"{arguments.out}: {checkpoint.provenance['imported_from']} on {arguments.base}, {language.layers} layers of "
        f"{language.dim}, exits after layers {', '.join(map(str, language.exit_layers))} (counted from 0), "
        f"{arguments.out.stat().st_size / 1e9:.3g} GB in {arguments.dtype}"
    )
    for note in checkpoint.provenance["notes"]:
        print(f"note: {note}")
    return 0
