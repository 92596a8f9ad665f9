"""`deer faults`: tries faults on an arm bring-up with a simulated arm, and measures how long it takes to hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from deer_policies.errors import ConfigError

HELP = (
    "try faults on a simulated arm that moves, and measure how long it takes to hold; status 0 only if all hold in time"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="names of faults (default: all; --list tells them)")
    parser.add_argument("--list", action="store_true", help="tell what there is and end")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is tried")
    parser.add_argument("--policy", default="deer-nano", help="policy that runs: name of a bundled one, or path")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which faults come, and of the simulator")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/faults"), metavar="DIR", help="results and logs; goes on there"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs what was not tried yet, and prints the table."""
    from deer_ros.faults import report
    from deer_ros.faults.bench import FaultBench
    from deer_ros.faults.campaign import Campaign, chosen
    from deer_ros.faults.catalogue import FAULTS

    if arguments.list:
        print("\n".join(f"{fault.name:20} {fault.what}" for fault in FAULTS))
        return 0
    if arguments.rounds < 1:
        raise ConfigError(f"--rounds is {arguments.rounds}; it must be at least 1")
    faults = chosen(arguments.faults)

    def tell(line: str) -> None:
        print(line, flush=True)

    def bench() -> FaultBench:
        return FaultBench(arguments.policy, arguments.out / "logs", arguments.seed)

    campaign = Campaign(bench, arguments.out / "trials.json", tell, arguments.seed)
    campaign.run(faults, arguments.rounds)
    names = {fault.name for fault in faults}
    trials = [trial for trial in campaign.trials if trial.fault in names]
    text = report.table(trials)
    (arguments.out / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\n{report.summary(trials)}")
    return 0 if all(trial.within_bar for trial in trials) else 1
