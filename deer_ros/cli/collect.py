"""`deer collect`: records expert demonstrations in CALVIN's dataset layout."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

HELP = "record expert demonstrations in CALVIN's layout; an interrupted run goes on where it stopped"
_REPORT_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--scene", default="D", help="A, B, C or D")
    parser.add_argument("--tasks", nargs="+", default=["all"], metavar="TASK", help="names of tasks, or 'all'")
    parser.add_argument("--episodes", type=int, default=34, help="number of episodes; the tasks take turns")
    parser.add_argument("--seed", type=int, default=0, help="of starts, wordings and disturbances")
    parser.add_argument("--workers", type=int, default=2, help="processes; the files are the same for any number")
    parser.add_argument("--wordings", default="training", help="set of instructions: training or validation")
    parser.add_argument("--undisturbed", action="store_true", help="never push the arm off its way")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")


def run(arguments: argparse.Namespace) -> int:
    """Records the episodes and tells how it goes."""
    from deer_sim.collection import Disturbance
    from deer_sim.demonstrations import Plan, collect
    from deer_sim.tasks import TASKS

    plan = Plan(
        scene=arguments.scene,
        tasks=TASKS if arguments.tasks == ["all"] else tuple(arguments.tasks),
        episodes=arguments.episodes,
        seed=arguments.seed,
        wordings=arguments.wordings,
        disturbance=None if arguments.undisturbed else Disturbance(),
    )
    began = reported = time.monotonic()
    frames = disturbed = retried = 0
    for count, record in enumerate(collect(plan, arguments.out, arguments.workers), 1):
        frames += record.end - record.start
        disturbed += record.disturbed
        retried += record.attempts - 1
        now = time.monotonic()
        if now - reported > _REPORT_S:
            reported = now
            left_s = (now - began) / count * (plan.episodes - count)
            rate = frames / (now - began)
            print(f"{count}/{plan.episodes} episodes, {rate:.0f} frames/s, {left_s:.0f} s left", flush=True)
    print(f"{plan.episodes} episodes, {frames} frames, {disturbed} of them disturbed, in {arguments.out}")
    if retried:
        print(f"starts drawn again because the expert did not solve them in time: {retried}")
    return 0
