"""`deer replay`: recorded trajectories of the official environment, replayed and compared at every step."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "replay recorded CALVIN trajectories in the official scenes; status 0 only if every step is as recorded"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="recordings (.npz), see docs/calvin.md")
    parser.add_argument(
        "--calvin-data",
        type=Path,
        metavar="PATH",
        help="git clone of calvin_env, or a folder with its conf/ and data/; "
        "not needed where that package is installed or the variable CALVIN_DATA names it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the deviations of each file; 0 if all hold, 1 if one does not."""
    from contextlib import ExitStack

    from deer_sim.calvin.environment import CalvinTable
    from deer_sim.calvin.recording import read_recording
    from deer_sim.calvin.replay import TOLERANCES, replay

    recordings = {path: read_recording(path) for path in arguments.files}
    stages: dict[str, CalvinTable] = {}
    held = 0
    with ExitStack() as stack:
        for path, recording in recordings.items():
            if recording.scene not in stages:
                stage = CalvinTable(recording.scene, arguments.calvin_data, cameras=False, exact=True)
                stages[recording.scene] = stack.enter_context(stage)
            found = replay(recording, stages[recording.scene])
            held += found.holds
            print(f"{path}: {len(recording.actions)} steps, {found}", flush=True)
    print(f"{held} of {len(recordings)} recordings hold: {TOLERANCES}")
    return 0 if held == len(recordings) else 1
