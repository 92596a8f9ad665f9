"""The subcommand `deer doctor`: runs every check and prints a table, or JSON for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from deer_ros.cli.doctor.checks import CHECKS
from deer_ros.cli.doctor.finding import Finding, Status

HELP = "check this machine, and say what to do about each finding"
STYLES = {Status.OK: "green", Status.NOTE: "yellow", Status.BROKEN: "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `deer doctor`."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings. Returns 1 if the main job can't run on this machine, else 0."""
    findings = list(examine(CHECKS))
    broken = any(finding.status is Status.BROKEN for finding in findings)
    if arguments.json:
        json.dump({"ready": not broken, "findings": [asdict(finding) for finding in findings]}, sys.stdout, indent=2)
        print()
    else:
        print_table(findings)
    return int(broken)


def examine(checks: Iterable[Callable[[], Finding]]) -> Iterator[Finding]:
    """Runs the checks one by one; a check that itself fails is a finding too and does not end the examination."""
    for check in checks:
        try:
            yield check()
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            detail = f"the check itself failed: {type(error).__name__}: {error}"
            yield Finding(name, Status.BROKEN, detail, "report this, with the whole output of `deer doctor --json`")


def print_table(findings: Iterable[Finding]) -> None:
    """Prints a table with a row for each finding and its remedy below the detail, then the verdict."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("check", "status", "what is there, and what to do"):
        table.add_column(heading, overflow="fold")
    broken = []
    for finding in findings:
        words = escape(finding.detail)
        if finding.remedy:
            words += f"\n[{STYLES[finding.status]}]→ {escape(finding.remedy)}[/]"
        table.add_row(finding.name, f"[{STYLES[finding.status]}]{finding.status.value}[/]", words)
        if finding.status is Status.BROKEN:
            broken.append(finding.name)
    console = Console()
    console.print(table)
    if broken:
        console.print(f"[bold red]Not ready:[/] mend {', '.join(broken)} first.")
    else:
        console.print("[bold green]Ready.[/] Try `deer demo`.")
