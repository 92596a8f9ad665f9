"""`deer crosscheck`: the same random actions through CALVIN's own package and through our engine, compared."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "run the same random actions in CALVIN's own package and in our engine, and compare every step"
PICTURES_EVERY = 25


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--env", default="calvin:D", help="official scene, calvin:A to calvin:D")
    parser.add_argument("--seed", type=int, default=0, help="draws the starting state and the actions")
    parser.add_argument("--steps", type=int, default=200, help="control steps")
    parser.add_argument("--calvin-data", type=Path, metavar="PATH", help="git clone of calvin_env, where not installed")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what the official package did, as .npz")


def run(arguments: argparse.Namespace) -> int:
    """Prints the deviations; 0 if they are within the tolerances of `deer replay`, else 1."""
    import numpy as np

    from deer_policies.errors import ConfigError
    from deer_sim.calvin.environment import CalvinTable
    from deer_sim.calvin.official import OfficialTable
    from deer_sim.calvin.recording import write_recording
    from deer_sim.calvin.replay import TOLERANCES, random_walk, record, replay
    from deer_sim.calvin.rules import starting_conditions
    from deer_sim.calvin.sequences import start_state
    from deer_sim.environments import split_name

    family, scene = split_name(arguments.env)
    if family != "calvin":
        raise ConfigError(f"the official package has no scene {arguments.env}; use calvin:{scene}")
    if arguments.steps < 1 or arguments.seed < 0:
        raise ConfigError(f"--steps is {arguments.steps}, --seed {arguments.seed}; at least 1 and 0 are needed")
    rng = np.random.default_rng(arguments.seed)
    conditions = starting_conditions()
    start = start_state(conditions[rng.integers(len(conditions))])
    actions = random_walk(arguments.steps, rng)
    pictures = range(0, arguments.steps + 1, PICTURES_EVERY)
    with OfficialTable(scene, arguments.calvin_data, cameras=False) as official:
        recording = record(official, scene, *start, actions, pictures)
    if arguments.out is not None:
        write_recording(arguments.out, recording)
    with CalvinTable(scene, arguments.calvin_data, cameras=False) as ours:
        found = replay(recording, ours)
    solved = sorted(set().union(*recording.solved))
    print(f"{arguments.env}, seed {arguments.seed}: {arguments.steps} steps, {found}")
    print(f"solved on the way: {', '.join(solved) or 'nothing'}; tolerances: {TOLERANCES}")
    return 0 if found.holds else 1
