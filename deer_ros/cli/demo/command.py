"""The subcommand `deer demo`: starts the stack, gives five instructions, and writes film, report and page."""

from __future__ import annotations

import argparse
import platform
import subprocess
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path

from deer_policies.errors import ConfigError, DeerError

HELP = "watch the robot follow five instructions in simulation, over ROS 2; writes a film and a report"
SOLVED_NEEDED = 4
"""Of five; with fewer the exit status is 1."""
DISTRIBUTIONS = ("deer_ros", "numpy", "torch", "pybullet", "ros-rclpy")
END_CARD_FRAMES = 75


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `deer demo`."""
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--scene", default="D", help="PlayTable scene: A, B, C or D")
    parser.add_argument("--seed", type=int, default=0, help="of the start, the chain and its wordings")
    parser.add_argument(
        "--budgets",
        type=float,
        nargs=2,
        default=(0.8, 0.4),
        metavar=("FIRST", "SECOND"),
        help="mean compute of the language model as parts of running all its layers, before and after the change",
    )
    parser.add_argument("--max-steps", type=int, default=360, help="control steps before an instruction counts as failed")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder in which the run gets a folder of its own")


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration. Returns 0 if it came to its end and at least four of the five subtasks were solved.

    What was recorded before an interruption or an error is written as well; then the cause is raised again.
    """
    from deer_policies.deer.checkpoint import load_policy
    from deer_ros.bringup import Stack
    from deer_ros.cli.demo.chain import draw_chain
    from deer_ros.cli.demo.conductor import Budgets, Conductor
    from deer_ros.cli.demo.progress import open_progress
    from deer_ros.cli.demo.record import DemoRecord
    from deer_ros.cli.demo.recorder import Recorder

    if arguments.max_steps < 1:
        raise ConfigError(f"--max-steps is {arguments.max_steps}; it must be at least 1")
    chain = draw_chain(arguments.scene, arguments.seed)
    policy = load_policy(arguments.policy)
    info = policy.info
    full_gmac = policy.costs.llm_gmac(len(info.exit_layers) - 1)
    budgets = Budgets(*(share * full_gmac for share in arguments.budgets), full_gmac)
    started = datetime.now().astimezone()
    folder = arguments.out / started.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    record = DemoRecord(
        policy=info.name,
        weights_sha256=info.weights_sha256,
        exit_layers=info.exit_layers,
        full_gmac=full_gmac,
        seed=arguments.seed,
        environment="",
        renderer="",
        command=command_line(arguments),
        started=started.isoformat(timespec="seconds"),
        commit=commit(),
        versions=versions(),
        planned=len(chain.links),
        subtasks=(),
    )
    cause: BaseException | None = None
    conductor: Conductor | None = None
    title = f"{info.name} · scene {arguments.scene} · seed {arguments.seed}"
    with open_progress(len(info.exit_layers), chain.links, title) as progress:
        progress.note(f"starting simulator, policy and safety node; their output goes to {folder / 'logs'}")
        try:
            with Stack(stack_config(arguments, folder / "logs")) as stack:
                recorder = Recorder(stack.client)
                simulator = stack.client.reset(arguments.seed, chain.start.robot_obs, chain.start.scene_obs)
                record = replace(record, environment=simulator.environment, renderer=simulator.renderer)
                conductor = Conductor(stack.client, recorder, progress, budgets, arguments.max_steps)
                conductor.run(chain.links)
        except (KeyboardInterrupt, DeerError) as error:
            cause = error
            progress.note("interrupted; writing what was recorded" if isinstance(error, KeyboardInterrupt) else f"{error}")
        if conductor is not None and conductor.records:
            write(replace(record, subtasks=tuple(conductor.records)), folder, progress)
    if cause is not None:
        raise cause
    assert conductor is not None
    solved = sum(subtask.success for subtask in conductor.records)
    print(f"{solved} of {len(chain.links)} instructions carried out")
    return 0 if solved >= SOLVED_NEEDED else 1
