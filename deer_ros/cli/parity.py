"""`deer parity`: replays recordings of the official code, and tells how far each stage is from them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_policies.parity.replay import Report

HELP = "replay recordings of the official DeeR code and check every stage against them"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="folder with weights.safetensors, io.npz and stats.json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints a table for each folder. Returns 0 if every stage of every folder holds, 1 if not, 2 for a bad folder."""
    from deer_policies.errors import DeerError
    from deer_policies.parity.replay import replay

    status = 0
    for folder in arguments.folders:
        try:
            report = replay(folder)
        except DeerError as error:
            print(f"deer parity: {error}", file=sys.stderr)
            status = 2
            continue
        print_report(folder, report)
        status = max(status, int(not report.holds))
    return status


def print_report(folder: Path, report: Report) -> None:
    """Prints one row for each stage, then what was not replayed and the verdict."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from deer_policies.parity.comparison import TOLERANCE

    table = Table(title=escape(str(folder)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("numbers", justify="right")
    table.add_column("largest error", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("")
    for result in report.results:
        if not result.recorded:
            table.add_row(result.name, "", "", "", "[yellow]not recorded[/]")
            continue
        where = f"not the same: {', '.join(result.wrong)}" if result.wrong else result.worst
        verdict = "[green]holds[/]" if result.holds else "[bold red]differs[/]"
        # A stage of discrete values alone has no error: they are the same or not.
        error = f"{result.error:.1e}" if result.worst else "exact" if result.holds else ""
        table.add_row(result.name, str(result.numbers), error, escape(where), verdict)
    console = Console()
    console.print(table)
    if report.not_replayed:
        console.print(f"Recorded but not replayed: {escape(', '.join(report.not_replayed))}.", highlight=False)
    failed = [result.name for result in report.results if not result.holds]
    if failed:
        console.print(f"[bold red]Differs[/] in {', '.join(failed)}.", highlight=False)
    else:
        every = "Every stage" if all(result.recorded for result in report.results) else "Every recorded stage"
        console.print(
            f"[bold green]{every} holds[/] to {TOLERANCE:g} (relative where a recorded number is above 1); "
            "exits, thresholds and token ids are the same.",
            highlight=False,
        )
