"""`deer dataset`: checks a dataset in CALVIN's layout, and turns it into LeRobot's and back."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

HELP = "check a dataset in CALVIN's layout; export it to LeRobot's format, or import it from there"
_REPORT_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = commands.add_parser("check", help="read everything, print a summary and every problem; exit 1 if any")
    check.add_argument("path", type=Path, help="folder of a dataset, or of one of its splits")
    check.add_argument("--workers", type=int, default=2, help="processes that read frames")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the actions. Returns 1 if a check found a problem, else 0."""
    return _check(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from deer_policies.errors import ConfigError
    from deer_sim.dataset.checking import check_split, frame_ranges
    from deer_sim.dataset.layout import split_folders

    if arguments.workers < 1:
        raise ConfigError(f"--workers is {arguments.workers}; at least 1 is needed")
    problems = 0
    for folder in split_folders(arguments.path):
        report = check_split(folder, arguments.workers, _Progress("frames read"))
        print(folder)
        for line in report.summary:
            print(f"  {line}")
        for line in report.problems:
            print(f"  PROBLEM {line}")
        if report.damaged:
            print(f"  to be extracted from the archive again: frames {frame_ranges(report.damaged)}")
        problems += len(report.problems)
    print("no problem found" if not problems else f"{problems} problem{'s' * (problems > 1)} found")
    return int(problems > 0)


class _Progress:
    """Prints how far a long action is, every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._reported = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done and now - self._reported > _REPORT_S:
            self._reported = now
            print(f"{done}/{total} {self._what}, {(now - self._began) / done * (total - done):.0f} s left", flush=True)
