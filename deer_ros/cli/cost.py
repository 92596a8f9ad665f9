"""`deer cost`: what one step of a policy costs at each exit, in computation and in memory."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from deer_ros.cli.policy_names import checkpoint_or_preset

if TYPE_CHECKING:
    from deer_policies.deer.config import DeerConfig
    from deer_policies.deer.cost_table import CostTable

HELP = "print what each exit of a policy costs: multiply-accumulates by part, parameters, memory"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--policy",
        default="deer-nano",
        help="bundled policy, path of a checkpoint, or preset: openflamingo-3b, openflamingo-9b (no weights needed)",
    )
    parser.add_argument(
        "--tokens", type=int, help="length of the instruction with its markers; the policy's reference length if absent"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the costs."""
    from deer_policies.deer.cost_table import cost_table

    table = cost_table(config_of(arguments.policy), arguments.tokens)
    if arguments.json:
        print(json.dumps(table.to_dict(), indent=2))
    else:
        print_table(table)
    return 0


def config_of(policy: str) -> DeerConfig:
    """Configuration of what `checkpoint_or_preset` finds under this name."""
    from deer_policies.deer.checkpoint import read_config

    found = checkpoint_or_preset(policy)
    return read_config(found) if isinstance(found, Path) else found


def print_table(table: CostTable) -> None:
    """Prints computation, then memory, then how the figures relate to the paper's."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    names = [memory.precision for memory in table.exits[0].memory]
    work = Table(
        "exit", "layers", "vision", "resampler", "LLM", "head", "total", "all checked",
        title=f"{table.policy}, {table.tokens} tokens: GMAC (1e9 multiply-accumulates) of one step",
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    memory = Table(
        "exit", "parameters", *names,
        title="Memory in GiB: weights + activations", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for column in (*work.columns, *memory.columns):
        column.justify, column.no_wrap = "right", True
    for cost in table.exits:
        parts = (cost.vision_gmac, cost.resampler_gmac, cost.llm_gmac, cost.head_gmac, cost.total_gmac)
        work.add_row(
            str(cost.exit_index), str(cost.exit_layer + 1), *(f"{part:.5g}" for part in (*parts, cost.checked_gmac))
        )
        memory.add_row(
            str(cost.exit_index),
            f"{cost.parameters / 1e6:.1f} M",
            *(f"{entry.weights_gib:.3g} + {entry.activations_gib:.2g}" for entry in cost.memory),
        )
    console.print(work)
    console.print("head: one run; all checked: with a run at every exit up to this one and one before the first.")
    console.print(memory)
    console.print(table.relation_to_paper, highlight=False)
