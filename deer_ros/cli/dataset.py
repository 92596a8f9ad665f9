"""`deer dataset`: checks a dataset in CALVIN's layout, makes one of recordings, turns it into LeRobot's and back."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

HELP = "check a dataset in CALVIN's layout; make one of recordings; export it to LeRobot's format, or import it"
_REPORT_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    from deer_ros.cli import recorded_dataset

    commands = parser.add_subparsers(dest="verb", metavar="ACTION", required=True)
    check = commands.add_parser("check", help="read everything, print a summary and every problem; exit 1 if any")
    check.add_argument("path", type=Path, help="folder of a dataset, or of one of its splits")
    check.add_argument("--workers", type=int, default=2, help="processes that read frames")
    export = commands.add_parser("export", help="write the annotated windows in another format")
    export.add_argument("path", type=Path, help="folder of a dataset in CALVIN's layout, or of one of its splits")
    export.add_argument("--images", choices=("png", "video"), default="png", help="video (H.264) changes the pixels")
    importing = commands.add_parser("import", help="write data of another format in CALVIN's layout")
    importing.add_argument("path", type=Path, help="folder of a dataset, or one of a split each")
    for name, what in (
        ("static", "images of the static camera"),
        ("gripper", "images of the gripper's camera"),
        ("state", "CALVIN's robot_obs (15)"),
        ("action", "CALVIN's relative actions (7)"),
    ):
        importing.add_argument(f"--{name}", metavar="FEATURE", help=f"name of the feature with {what}")
    for command in (export, importing):
        command.add_argument("--format", choices=("lerobot",), default="lerobot", help="the other format")
    recorded = commands.add_parser("from-recording", help="write what `deer record` has recorded in CALVIN's layout")
    recorded_dataset.configure(recorded)
    for command in (export, importing, recorded):
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder to write")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of the actions. Returns 1 if a check found a problem or nothing was written, else 0."""
    from deer_ros.cli import recorded_dataset

    actions = {"check": _check, "export": _export, "import": _import, "from-recording": recorded_dataset.run}
    return actions[arguments.verb](arguments)


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


def _export(arguments: argparse.Namespace) -> int:
    from deer_sim.dataset.layout import split_folders
    from deer_sim.lerobot.export import export_split

    for folder in split_folders(arguments.path):
        out = arguments.out if folder == arguments.path else arguments.out / folder.name
        episodes, frames = export_split(folder, out, arguments.images == "video", _Progress("episodes written"))
        print(f"{episodes} episodes, {frames} frames in {out}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from deer_sim.dataset.layout import SPLITS
    from deer_sim.lerobot.importing import Names, import_dataset

    given = {name: getattr(arguments, name) for name in ("static", "gripper", "state", "action")}
    names = Names(**{name: feature for name, feature in given.items() if feature})
    parts = [name for name in SPLITS if (arguments.path / name).is_dir()] or ["."]
    for part in parts:
        out = arguments.out / part
        annotations, frames = import_dataset(arguments.path / part, out, names, _Progress("episodes written"))
        print(f"{annotations} annotations, {frames} frames in {out}")
    return 0


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
