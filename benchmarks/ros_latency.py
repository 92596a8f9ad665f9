"""Measures the time from a camera frame's stamp to the command in the arm's driver, split into parts, at 30 Hz.

Run: python benchmarks/ros_latency.py [--seconds 600] [--policies none deer-nano] [--sizes own 480x640]

Driver, policy node and safety node run as processes on a ROS domain of their own; each notes the monotonic clock, which
they share. Ctrl-C ends a measurement early and keeps what there is. Times in a JSON file; tables on standard output and
in the document that --results names.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import Observation
from deer_ros.cli.provenance import commit
from latency import machine, pictures, report, session
from latency.analysis import Steps, percentiles, summary
from latency.variants import GROUPS, ROUNDS
from paper.document import write_section

ALONE_S = 5.0


class InterruptedEarlyError(Exception):
    """A person ended a measurement."""


def size(text: str) -> tuple[int, int] | None:
    """Rows and columns of both cameras' images; 'own' is the policy's."""
    if text == "own":
        return None
    rows, _, columns = text.partition("x")
    if not (rows.isdigit() and columns.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 'own', or rows and columns such as 480x640")
    return int(rows), int(columns)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each policy and size; 600 for the record")
    parser.add_argument("--policies", nargs="+", default=["none", "deer-nano"], help="names, paths, or none")
    parser.add_argument("--sizes", nargs="+", type=size, default=[None, (480, 640)], help="own, or ROWSxCOLUMNS")
    parser.add_argument("--compare-seconds", type=float, default=10.0, help="of a variant and round; 0: no comparison")
    parser.add_argument("--seed", type=int, default=5, help="of the episode that the cameras play")
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="run everything with SCHED_RR, which needs the right to: on a busy machine",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/latency"), help="folder of latency.json")
    parser.add_argument(
        "--results", type=Path, default=Path("docs/results.md"), help="document to write the section into"
    )
    found = parser.parse_args(arguments)
    if found.seconds <= 0.0 or found.compare_seconds < 0.0:
        parser.error(
            f"--seconds is {found.seconds:g} and --compare-seconds {found.compare_seconds:g}; use positive times"
        )
    return found


def measured(setup: session.Setup, observations: list[Observation], seconds: float, title: str) -> session.Session:
    """One session, with its progress on standard output."""

    def told(passed_s: float) -> None:
        print(f"\r{title}: {passed_s:.0f} of {seconds:.0f} s ", end="", flush=True)

    print(f"{title}: starting", end="", flush=True)
    made = session.run(setup, observations, seconds, told)
    lost = int((~made.steps.answered).sum())
    print(f"\r{title}: {made.seconds:.0f} s, {len(made.steps.asked)} frames, {lost} missed", flush=True)
    return made


def described(setup: session.Setup, made: Sequence[session.Session]) -> dict[str, Any]:
    """What is written down of the sessions of one setup."""
    steps = Steps(
        np.concatenate([part.steps.parts_ms for part in made]), np.concatenate([part.steps.asked for part in made])
    )
    seconds = sum(part.seconds for part in made)
    cores = {name: sum(part.cores[name] * part.seconds for part in made) / seconds for name in made[0].cores}
    late_ms = np.concatenate([part.timer_late_ms for part in made])
    return {
        "policy": setup.policy,
        "size": setup.size,
        "seconds": seconds,
        **summary(steps, 1.0 / session.RATE_HZ),
        "cores": cores,
        "timer": percentiles(late_ms),
    }


class Measurements:
    """Everything measured so far; written after each session."""

    def __init__(self, arguments: argparse.Namespace, command: str) -> None:
        self._path = arguments.out / "latency.json"
        self._observations = pictures.play(arguments.seed)
        self.runs: list[dict[str, Any]] = []
        self.compared: dict[str, dict[str, dict[str, Any]]] = {}
        self.about: dict[str, Any] = {
            "command": command,
            "commit": commit(),
            "cores": os.cpu_count(),
            "scheduling": "SCHED_RR" if arguments.real_time else "ordinary scheduling",
            "finished": None,
            "compare seconds": arguments.compare_seconds,
            "rounds": ROUNDS,
            "timer alone": percentiles(machine.tick(ALONE_S, session.RATE_HZ)),
        }

    def run(self, setups: Sequence[session.Setup], seconds: float) -> None:
        """Measures each setup by itself."""
        for index, setup in enumerate(setups):
            title = f"[{index + 1}/{len(setups)}] {report.size_name(setup.size)}, {setup.policy}"
            made = measured(setup, self._observations, seconds, title)
            self.runs.append(described(setup, [made]))
            self._kept(made)

    def compare(self, seconds: float) -> None:
        """Measures the variants of each group in turns."""
        for group, variants in GROUPS.items():
            made: dict[str, list[session.Session]] = {name: [] for name in variants}
            for turn in range(ROUNDS):
                for name, setup in variants.items():
                    title = f"[round {turn + 1}/{ROUNDS}] {group}: {name}"
                    made[name].append(measured(setup, self._observations, seconds, title))
                    done = {name: described(variants[name], parts) for name, parts in made.items() if parts}
                    self.compared[group] = done
                    self._kept(made[name][-1])

    def _kept(self, made: session.Session) -> None:
        self.about["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        content = {"about": self.about, "runs": self.runs, "compared": self.compared}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(self._path)
        if made.interrupted:
            raise InterruptedEarlyError


def main() -> int:
    """Measures, prints the tables and writes them down."""
    arguments = parsed(sys.argv[1:])
    if arguments.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    setups = [session.Setup(policy, size) for size in arguments.sizes for policy in arguments.policies]
    measurements = Measurements(arguments, f"python {shlex.join(sys.argv)}")
    interrupted = False
    try:
        measurements.run(setups, arguments.seconds)
        if arguments.compare_seconds:
            measurements.compare(arguments.compare_seconds)
    except InterruptedEarlyError:
        interrupted = True
        print("interrupted: what was measured so far counts")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    text = report.section(measurements.runs, measurements.compared, measurements.about)
    print(f"\n{text}\n")
    if interrupted:
        print(f"{arguments.results} was left as it is")
        return 130
    write_section(arguments.results, "ros_latency", text)
    print(f"wrote {arguments.out / 'latency.json'} and a section of {arguments.results}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
