"""The subcommand `deer demo`: starts the stack, gives five instructions, and writes film, report and page."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deer_policies.errors import ConfigError, DeerError

if TYPE_CHECKING:
    from deer_ros.bringup import StackConfig
    from deer_ros.cli.demo.conductor import Budgets
    from deer_ros.cli.demo.progress import Progress
    from deer_ros.cli.demo.record import DemoRecord
    from deer_sim.chains import Chain

HELP = "watch the robot follow a sequence of the benchmark in simulation, over ROS 2; writes a film and a report"
SOLVED_NEEDED = 4
"""Of five; with fewer the exit status is 1."""
BUDGETS = (0.8, 0.4)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `deer demo`."""
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--scene", default="D", help="PlayTable scene: A, B, C or D")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the benchmark's sequences, of which the first is run, and of wordings; 0 for the official ones",
    )
    parser.add_argument(
        "--budgets",
        type=float,
        nargs=2,
        default=BUDGETS,
        metavar=("FIRST", "SECOND"),
        help="mean compute of the language model before and after the change, as parts of running all its layers",
    )
    parser.add_argument(
        "--max-steps", type=int, default=360, help="control steps before an instruction counts as failed"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder in which the run gets a folder of its own"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration. Returns 0 if it came to its end and at least four of the five subtasks were solved.

    What was recorded before an interruption or an error is written as well; then the cause is raised again.
    """
    from deer_policies.deer.checkpoint import load_policy
    from deer_ros.cli.demo.conductor import Budgets
    from deer_ros.cli.demo.progress import open_progress
    from deer_ros.cli.demo.publish import PAGE, publish
    from deer_ros.cli.demo.record import DemoRecord
    from deer_ros.cli.provenance import commit, versions
    from deer_sim.calvin.sequences import task_sequences
    from deer_sim.chains import own_wording, sequence_chains

    if arguments.max_steps < 1:
        raise ConfigError(f"--max-steps is {arguments.max_steps}; it must be at least 1")
    sequences = task_sequences(1, arguments.seed)
    (chain,) = sequence_chains(sequences, arguments.seed, arguments.scene, own_wording)
    policy = load_policy(arguments.policy)
    full_gmac = policy.costs.llm_gmac(len(policy.info.exit_layers) - 1)
    first, second = arguments.budgets
    budgets = Budgets(first * full_gmac, second * full_gmac, full_gmac)
    started = datetime.now().astimezone()
    folder = make_folder(arguments.out / started.strftime("%Y%m%d-%H%M%S"))
    record = DemoRecord(
        policy=policy.info.name,
        weights_sha256=policy.info.weights_sha256,
        exit_layers=policy.info.exit_layers,
        full_gmac=full_gmac,
        seed=arguments.seed,
        command=command_line(arguments),
        started=started.isoformat(timespec="seconds"),
        commit=commit(),
        versions=versions(),
        planned=len(chain.subtasks),
    )
    title = f"{record.policy} · scene {arguments.scene} · seed {arguments.seed}"
    with open_progress(len(record.exit_layers), chain.subtasks, title) as progress:
        record, cause = perform(arguments, chain, budgets, record, folder, progress)
        if record.subtasks:
            record = publish(record, folder, progress)
    if record.subtasks:
        print(f"{record.solved} of {record.planned} instructions carried out; see {folder / PAGE}")
    if cause is not None:
        raise cause
    return 0 if record.solved >= SOLVED_NEEDED else 1


def perform(
    arguments: argparse.Namespace,
    chain: Chain,
    budgets: Budgets,
    record: DemoRecord,
    folder: Path,
    progress: Progress,
) -> tuple[DemoRecord, BaseException | None]:
    """Starts the stack, leads it through the chain, and stops it.

    Returns:
        The record with what was done, and what cut it short, if anything did.
    """
    from deer_ros.bringup import Stack
    from deer_ros.cli.demo.conductor import Conductor
    from deer_ros.cli.demo.recorder import Recorder

    conductor = None
    cause: BaseException | None = None
    progress.note(f"starting simulator, policy and safety node; their logs are in {folder / 'logs'}")
    try:
        with Stack(stack_config(arguments, folder / "logs")) as stack:
            recorder = Recorder(stack.client)
            simulator = stack.client.reset(chain.seed, list(chain.robot_obs), list(chain.scene_obs))
            record = replace(record, environment=simulator.environment, renderer=simulator.renderer)
            conductor = Conductor(stack.client, recorder, progress, budgets, arguments.max_steps)
            conductor.run(chain.subtasks)
    except (KeyboardInterrupt, DeerError) as error:
        cause = error
        if conductor is not None and conductor.records:
            progress.note("cut short; writing what was recorded so far")
    return replace(record, subtasks=tuple(conductor.records) if conductor else ()), cause


def make_folder(folder: Path) -> Path:
    """Makes the run's folder. Raises ConfigError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't write to {folder} ({error}); choose another folder with --out") from error
    return folder


def stack_config(arguments: argparse.Namespace, log_folder: Path) -> StackConfig:
    """The simulation in lockstep, so that a slow machine shows the same demonstration as a fast one."""
    from deer_ros.bringup import StackConfig

    return StackConfig(
        bringup="simulation",
        overrides={
            "simulator": {"scene": arguments.scene, "mode": "lockstep"},
            "policy": {"policy": arguments.policy},
        },
        log_folder=log_folder,
    )


def command_line(arguments: argparse.Namespace) -> str:
    """The command that makes this demonstration again."""
    words = ["deer", "demo", "--policy", arguments.policy, "--scene", arguments.scene, "--seed", str(arguments.seed)]
    words += ["--budgets", *(f"{share:g}" for share in arguments.budgets), "--max-steps", str(arguments.max_steps)]
    return shlex.join(words)
