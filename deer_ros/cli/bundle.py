"""`deer bundle`: notes in a checkpoint what finished evaluations of exactly its weights have found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "write a checkpoint that carries its scores: those of finished evaluations of exactly these weights"
LARGEST_BYTES = 20_000_000
"""Of a checkpoint in the repository."""
NOTED = (
    *("command", "commit", "finished", "environment", "renderer", "wordings", "mode", "seed", "max_steps"),
    *("sequences", "average_length", "average_length_interval"),
    *("mean_exit_layers", "mean_llm_gmac", "llm_share", "mean_total_gmac", "total_share"),
    *("budget", "thresholds", "precision", "reuse_views_below"),
)
"""What is taken over from report.json; the rates are added."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("checkpoint", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("evaluations", type=Path, nargs="+", help="folders that `deer eval --out` wrote")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write (.safetensors)")


def run(arguments: argparse.Namespace) -> int:
    """Checks the evaluations and writes the checkpoint; scores that it carried before are replaced."""
    from deer_policies.deer.checkpoint import find, load, save_with_provenance
    from deer_policies.errors import CheckpointError

    path = find(arguments.checkpoint)
    checkpoint = load(path)
    scores = [score_of(folder, checkpoint.sha256) for folder in arguments.evaluations]
    provenance = {**checkpoint.provenance, "scores": scores}
    # The provenance is text within the text of the file's header.
    size = path.stat().st_size + len(json.dumps(json.dumps(provenance)))
    if size > LARGEST_BYTES:
        raise CheckpointError(
            f"{path} with its scores takes {size / 1e6:.2f} MB; what is bundled may take {LARGEST_BYTES / 1e6:.0f} MB: "
            "calibrate with fewer episodes, or train a smaller policy"
        )
    save_with_provenance(arguments.out, path, provenance)
    for folder, score in zip(arguments.evaluations, scores, strict=True):
        if score["commit"] in ("", None) or score["commit"].endswith("-dirty"):
            print(f"WARNING: {folder} was made by code that no commit holds ({score['commit'] or 'no repository'})")
        low, high = score["average_length_interval"]
        chains = "sequences" if score["mode"] == "sequences" else "starts"
        print(
            f"{score['environment']}, {score['sequences']} {chains}, seed {score['seed']}: "
            f"{score['average_length']:.3f} [{low:.3f}, {high:.3f}] at {score['llm_share']:.1%} of the language model"
        )
    print(f"wrote {arguments.out}, {arguments.out.stat().st_size / 1e6:.2f} MB, {checkpoint.sha256}")
    return 0


def score_of(folder: Path, sha256: str) -> dict[str, Any]:
    """What an evaluation found, for the provenance of the checkpoint with this hash.

    Raises:
        ConfigError: if there is no report, or it is about other weights.
    """
    from deer_policies.errors import ConfigError
    from deer_ros.cli.evaluation_report import REPORT

    path = folder / REPORT
    if not path.is_file():
        raise ConfigError(f"{folder} has no {REPORT}; finish it with the `deer eval` command that began it")
    report = json.loads(path.read_text())
    if report["weights_sha256"] != sha256:
        raise ConfigError(
            f"{folder} evaluated weights {report['weights_sha256'][:16] or 'of no file'}, and the checkpoint's are "
            f"{sha256[:16]}; evaluate this very checkpoint"
        )
    tried = report["all"]
    rates = {"success": tried["success"], "attempts": tried["attempts"], "interval": tried["wilson"]}
    return {**{name: report[name] for name in NOTED}, **rates}
