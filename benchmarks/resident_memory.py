"""Measures the resident memory of a policy loaded under two peak budgets: layers beyond them are never in memory.

Run: python benchmarks/resident_memory.py [--dim 768]

A checkpoint of a widened deer-nano is written to a temporary folder; each budget is measured in a process of its own,
which loads the policy and does one step. Figures are above what the process needs before it loads anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, load_policy, save
from deer_policies.deer.config import changed
from deer_policies.deer.policy import example_observation
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.interfaces import Budget

MIB = 2.0**20


def resident_mib(name: str) -> float:
    """VmRSS (now) or VmHWM (largest so far) of this process, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1024


def measure(path: Path, peak_gib: float) -> dict[str, float]:
    """Loads a policy under a peak memory budget, does a step, and tells what it took."""
    torch.set_num_threads(1)
    before = resident_mib("VmRSS")
    policy = load_policy(path, peak=Budget(peak_memory_gib=peak_gib))
    policy.step(example_observation(policy.info), policy.initial_state())
    return {
        "layers": len(policy.model.layers),
        "counted_mib": policy.memory_gib * 1024,
        "resident_mib": resident_mib("VmRSS") - before,
        "largest_mib": resident_mib("VmHWM") - before,
    }


def main() -> None:
    """Writes the checkpoint, measures each budget and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=768, help="width of the language model, a multiple of 4")
    parser.add_argument("--measure", nargs=2, metavar=("PATH", "GIB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure[0]), float(arguments.measure[1]))))
        return
    config = changed(deer_nano(), {"name": "wide", "language": {"dim": arguments.dim}})
    costs = CostModel(config)
    last = len(config.language.exit_layers) - 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.safetensors"
        model = DeerModel(config, auxiliary_heads=False)
        save(path, Checkpoint(model, Tokenizer.train(["open the drawer"], 300, max_tokens=32)))
        print(f"checkpoint of {path.stat().st_size / MIB:.0f} MiB, {costs.parameters(last) / 1e6:.1f} M parameters\n")
        print("| peak budget | layers loaded | weights and activations, counted | resident after a step | largest |")
        print("|---|---|---|---|---|")
        for exit_index in (0, last):
            gib = costs.memory_gib(exit_index)
            command = [sys.executable, __file__, "--measure", str(path), repr(gib)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"| {gib * 1024:.0f} MiB | {found['layers']} of {config.language.layers} | "
                f"{found['counted_mib']:.0f} MiB | {found['resident_mib']:.0f} MiB | {found['largest_mib']:.0f} MiB |"
            )


if __name__ == "__main__":
    main()
