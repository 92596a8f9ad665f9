"""Measures the resident memory of a checkpoint loaded under two peak budgets: layers beyond them are never in memory.

Run: python benchmarks/resident_memory.py [--policy openflamingo-3b] [--precision bfloat16]

A checkpoint with weights drawn at random is written to a temporary folder (2.9 GB for OpenFlamingo-3B in bfloat16), and
`deer measure` loads it under the memory that the first and the last exit need, each time in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, save
from deer_policies.deer.drawn import drawn_policy
from deer_policies.deer.precision import PRECISIONS
from deer_policies.deer.presets import preset


def write(policy: str, path: Path) -> CostModel:
    """Writes a checkpoint of a preset with 16-bit weights, and tells what it costs to run."""
    drawn = drawn_policy(preset(policy), precision="bfloat16")
    save(path, Checkpoint(drawn.model, drawn.tokenizer), dtype=torch.bfloat16)
    return drawn.costs


def main() -> None:
    """Writes the checkpoint, measures each budget and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="openflamingo-3b", help="a preset")
    parser.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="how the weights are held")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.safetensors"
        costs = write(arguments.policy, path)
        print("| peak budget | layers loaded | counted | resident | largest |\n|---|---|---|---|---|")
        for exit_index in (0, len(costs.config.language.exit_layers) - 1):
            gib = costs.memory_gib(exit_index, PRECISIONS[arguments.precision])
            options = ["--policy", str(path), "--precision", arguments.precision, "--peak-memory-gib", repr(gib)]
            command = [sys.executable, "-m", "deer_ros.cli.main", "measure", "--rounds", "1", "--json", *options]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            resident, largest = (found[name] - found["before_mib"] for name in ("resident_mib", "largest_mib"))
            print(
                f"| {gib * 1024:.0f} MiB | {found['layers_loaded']} of {found['layers']} | "
                f"{found['counted_mib']:.0f} MiB | {resident:.0f} MiB | {largest:.0f} MiB |"
            )


if __name__ == "__main__":
    main()
