"""`deer replay`: what was recorded, once more, and compared at every step: the policy's part, or the simulator's."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = (
    "show the policy a recording (.mcap) again, or act CALVIN trajectories (.npz) out in the official scenes; status 0 "
    "only if every step is as recorded"
)
TRAJECTORY = ".npz"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="recordings of `deer record` (.mcap or folder, see docs/recording.md), or trajectories (.npz, see "
        "docs/calvin.md)",
    )
    parser.add_argument("--policy", help="for recordings: name or checkpoint, instead of the one that was recorded")
    parser.add_argument("--device", help="for recordings: where it runs, instead of the recorded one")
    parser.add_argument(
        "--calvin-data",
        type=Path,
        metavar="PATH",
        help="for trajectories: git clone of calvin_env, or a folder with its conf/ and data/; "
        "not needed where that package is installed or the variable CALVIN_DATA names it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints what differs in each file; 0 if nothing does, 1 if something does."""
    from deer_ros.cli.policy_replay import replay_policy

    trajectories = [path for path in arguments.files if path.suffix == TRAJECTORY]
    recordings = [path for path in arguments.files if path.suffix != TRAJECTORY]
    equal = [replay_policy(path, arguments.policy, arguments.device) for path in recordings]
    held = not trajectories or _replay_trajectories(trajectories, arguments.calvin_data)
    return 0 if held and all(equal) else 1


def _replay_trajectories(paths: list[Path], calvin_data: Path | None) -> bool:
    """Prints the deviations of each file; whether all are within the tolerances."""
    from contextlib import ExitStack

    from deer_sim.calvin.environment import CalvinTable
    from deer_sim.calvin.recording import read_recording
    from deer_sim.calvin.replay import TOLERANCES, replay

    recordings = {path: read_recording(path) for path in paths}
    stages: dict[str, CalvinTable] = {}
    held = 0
    with ExitStack() as stack:
        for path, recording in recordings.items():
            if recording.scene not in stages:
                stage = CalvinTable(recording.scene, calvin_data, cameras=False, exact=True)
                stages[recording.scene] = stack.enter_context(stage)
            found = replay(recording, stages[recording.scene])
            held += found.holds
            print(f"{path}: {len(recording.actions)} steps, {found}", flush=True)
    print(f"{held} of {len(recordings)} recordings hold: {TOLERANCES}")
    return held == len(recordings)
