"""`deer measure`: how long a step of a policy takes on this machine at each exit, and how much memory."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deer_policies.deer.precision import PRECISIONS
from deer_ros.cli.budget_options import add_peaks, budget_asked_for
from deer_ros.cli.policy_names import checkpoint_or_preset

if TYPE_CHECKING:
    from deer_policies.deer.policy import DeerPolicy

HELP = "measure a policy on this machine: layers loaded under a budget, memory, wall time of a step at each exit"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--policy",
        default="deer-nano",
        help="bundled policy, path of a checkpoint, or a preset (openflamingo-3b, openflamingo-9b), whose weights are "
        "then drawn at random",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:0, ...")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="how the weights are held")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on a CPU")
    parser.add_argument("--rounds", type=int, default=50, help="steps at each exit")
    add_peaks(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Loads the policy, measures it, and prints what was found."""
    import torch

    from deer_policies.deer.measurement import Memory, exit_times

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    before = Memory.now(device)
    policy = load(arguments)
    times = exit_times(policy, arguments.rounds)
    after = Memory.now(device)
    found = {
        "policy": policy.info.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": arguments.precision,
        "layers_loaded": len(policy.model.layers),
        "layers": policy.model.config.language.layers,
        "counted_mib": policy.memory_gib * 1024,
        "before_mib": before.resident,
        "resident_mib": after.resident,
        "largest_mib": after.largest,
        "device_mib": after.device,
        "exits": [asdict(time) for time in times],
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    print(
        f"{found['policy']}, {found['precision']}, on {found['device']}: {found['layers_loaded']} of {found['layers']} "
        f"layers loaded\n\nexit  layers  LLM GMAC  total GMAC  p50 ms  p95 ms"
    )
    for time in times:
        print(
            f"{time.exit_index:4}  {time.exit_layer + 1:6}  {time.llm_gmac:8.4g}  {time.total_gmac:10.4g}  "
            f"{time.p50_ms:6.4g}  {time.p95_ms:6.4g}"
        )
    print(
        f"\nweights and activations: {policy.memory_gib * 1024:.0f} MiB as counted\n"
        f"memory of the process: {before.resident:.0f} MiB before loading, {after.resident:.0f} MiB now, "
        f"{after.largest:.0f} MiB at most"
    )
    if device.type == "cuda":
        print(f"memory of the device: {after.device:.0f} MiB at most")
    return 0


def load(arguments: argparse.Namespace) -> DeerPolicy:
    """A trained policy, or one drawn at random for a preset; under the limits that were asked for, else under none."""
    from deer_policies.deer.checkpoint import load_policy
    from deer_policies.deer.drawn import drawn_policy
    from deer_policies.interfaces import Budget

    peak, found = budget_asked_for(arguments) or Budget(), checkpoint_or_preset(arguments.policy)
    if isinstance(found, Path):
        return load_policy(found, arguments.device, peak, arguments.precision)
    return drawn_policy(found, arguments.device, peak, arguments.precision)
