"""Measures the simulators side by side: steps a second with both cameras and without, and where the time goes.

The same actions from the same start run in CALVIN's own package, in our engine with the same scene, and in PlayTable.
Times are CPU times, the smallest of some rounds in which all take turns, so that a busy machine matters less. The
official package is left out unless it runs (see docs/calvin.md: the variables CALVIN_DATA and CALVIN_PYTHON).

Run: python benchmarks/simulation.py [--scene D] [--steps 300] [--pictures 40] [--rounds 3] [--calvin-data PATH]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

SERVER = Path(__file__).resolve().parents[1] / "sim/deer_sim/calvin/official_server.py"
PROFILED = (
    *("stepSimulation", "calculateInverseKinematics", "getContactPoints", "setJointMotorControl2"),
    *("getCameraImage", "changeVisualShape"),
)


def timed(step: Any, actions: np.ndarray) -> float:
    """CPU time of a step in ms."""
    began = time.process_time()
    for action in actions:
        step(action)
    return 1e3 * (time.process_time() - began) / len(actions)


def official(walk: Path, scene: str, root: str | None, pictures: int) -> None:
    """Times the official package, in whose interpreter this runs; prints JSON, and saves its last pictures."""
    specification = importlib.util.spec_from_file_location("official_server", SERVER)
    server = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(server)
    with np.load(walk) as file:
        robot, state, actions = file["robot"], file["state"], file["actions"]
    # The package prints as it likes; the last line is what counts.
    began = time.process_time()
    environment = server.make(root, scene, False)
    found = {"make": 1e3 * (time.process_time() - began)}
    asked = server.Server(environment)
    start = {"seed": 0, "robot_obs": robot.tolist(), "scene_obs": state.tolist()}
    asked.reset(start)
    found["step"] = timed(environment.step, actions)
    began = time.process_time()
    asked.reset(start)
    found["reset"] = 1e3 * (time.process_time() - began)
    environment.cameras = asked.cameras
    found["both"] = timed(environment.step, actions[:pictures])
    drawn = environment.get_camera_obs()[0]
    np.savez(walk.with_name("official.npz"), **drawn)
    print("\n" + json.dumps(found))


def ask_official(walk: Path, scene: str, root: Path | None, pictures: int) -> dict[str, float]:
    """Runs `official` in the interpreter that has the package."""
    command = [os.environ.get("CALVIN_PYTHON", sys.executable), __file__, "--official", str(walk), "--scene", scene]
    command += ["--pictures", str(pictures), *(["--calvin-data", str(root)] if root else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the official package does not run here:\n{done.stderr[-800:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"make"')]
    return json.loads(lines[-1])


def ours(make: Any, robot: np.ndarray, state: np.ndarray, actions: np.ndarray, pictures: int) -> dict[str, Any]:
    """Times one of our environments."""
    began = time.process_time()
    with make() as environment:
        found: dict[str, Any] = {"make": 1e3 * (time.process_time() - began)}
        environment.reset(None, robot, state)
        found["step"] = timed(environment.step, actions)
        began = time.process_time()
        environment.reset(None, robot, state)
        found["reset"] = 1e3 * (time.process_time() - began)
        environment.pictures()

        def seen(action: np.ndarray) -> None:
            environment.step(action)
            environment.pictures()

        found["both"] = timed(seen, actions[:pictures])
        found["pictures"] = environment.pictures()
    return found


class Watched:
    """A physics client whose calls are timed."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.spent: dict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        wanted = getattr(self._client, name)
        if not callable(wanted):
            return wanted

        def call(*positional: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return wanted(*positional, **named)
            finally:
                self.spent[name] += time.process_time() - began

        return call


def profile(make: Any, robot: np.ndarray, state: np.ndarray, actions: np.ndarray) -> dict[str, float]:
    """CPU time in ms of a step with both cameras, by call into pybullet, and 'Python' for the rest."""
    from deer_sim.engine import environment as engine

    connect, clients = engine.connect, []

    def watching(*arguments: Any) -> Watched:
        clients.append(Watched(connect(*arguments)))
        return clients[-1]

    engine.connect = watching
    try:
        with make() as environment:
            environment.reset(None, robot, state)
            environment.pictures()
            clients[0].spent.clear()
            began = time.process_time()
            for action in actions:
                environment.step(action)
                environment.pictures()
            total = time.process_time() - began
    finally:
        engine.connect = connect
    spent = clients[0].spent
    found = {name: 1e3 * spent[name] / len(actions) for name in PROFILED}
    found["other calls"] = 1e3 * (sum(spent.values()) - sum(spent[name] for name in PROFILED)) / len(actions)
    found["Python"] = 1e3 * (total - sum(spent.values())) / len(actions)
    return found


def difference(first: Any, second: Any) -> str:
    """Mean difference of pictures, of 255, and how many of their pixels differ."""
    gaps = [np.abs(one.astype(int) - other).max(axis=2) for one, other in zip(first, second, strict=True)]
    return ", ".join(f"{gap.mean():.3g} ({int((gap > 0).sum())} px)" for gap in gaps)


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="D", help="A, B, C or D")
    parser.add_argument("--steps", type=int, default=300, help="steps without cameras in a round")
    parser.add_argument("--pictures", type=int, default=40, help="steps with both cameras in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calvin-data", type=Path, help="git clone of calvin_env, where not installed")
    parser.add_argument("--official", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.official is not None:
        official(given.official, given.scene, given.calvin_data and str(given.calvin_data), given.pictures)
        return

    from deer_sim.calvin.data import default_data
    from deer_sim.calvin.environment import CalvinTable
    from deer_sim.calvin.replay import random_walk
    from deer_sim.calvin.rules import starting_conditions
    from deer_sim.calvin.sequences import start_state
    from deer_sim.playtable.environment import PlayTable

    data = given.calvin_data or default_data()
    robot, state = start_state(starting_conditions()[5])
    actions = random_walk(given.steps, np.random.default_rng(0))
    makers: dict[str, Any] = {"PlayTable": lambda: PlayTable(given.scene, cameras=False)}
    if data is not None:
        for label, options in {
            "ours, pictures in one go": {"exact": True},
            "ours": {},
            "ours, light arm": {"light_arm": True},
        }.items():
            makers[label] = lambda options=options: CalvinTable(given.scene, data, cameras=False, **options)
    rounds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        walk = Path(folder) / "walk.npz"
        np.savez(walk, robot=robot, state=state, actions=actions)
        runs = data is not None and (data / "calvin_env").is_dir()
        for _ in range(given.rounds):
            if runs:
                rounds["calvin_env"].append(ask_official(walk, given.scene, data, given.pictures))
            for label, make in makers.items():
                rounds[label].append(ours(make, robot, state, actions, given.pictures))
        wanted = None
        if runs:
            with np.load(walk.with_name("official.npz")) as file:
                wanted = (file["rgb_static"], file["rgb_gripper"])

    def least(label: str, key: str) -> float:
        return min(found.get(key, float("nan")) for found in rounds[label])

    base = "calvin_env" if runs else "ours, pictures in one go"
    print(f"CPU ms on one core; scene {given.scene}; times faster than {base}\n")
    print("| | step | | step with both cameras | | reset | make | pictures against it |\n|" + "---|" * 8)
    for label in [*(["calvin_env"] if runs else []), *makers]:
        step, both = least(label, "step"), least(label, "both")
        faster = [
            least(base, key) / least(label, key) if data is not None else float("nan") for key in ("step", "both")
        ]
        drawn = rounds[label][0].get("pictures")
        against = "" if drawn is None or wanted is None or label == "PlayTable" else difference(drawn, wanted)
        print(
            f"| {label} | {step:.2f} ({1e3 / step:.0f}/s) | {faster[0]:.1f}x | {both:.1f} ({1e3 / both:.0f}/s) "
            f"| {faster[1]:.1f}x | {least(label, 'reset'):.0f} | {least(label, 'make'):.0f} | {against} |"
        )
    print("\nWhere a step with both cameras goes, CPU ms:\n")
    profiles = {label: profile(make, robot, state, actions[: given.pictures]) for label, make in makers.items()}
    print("| |" + "|".join(profiles) + "|\n|" + "---|" * (len(profiles) + 1))
    for name in next(iter(profiles.values())):
        print(f"| {name} |" + "|".join(f" {found[name]:.2f} " for found in profiles.values()) + "|")


if __name__ == "__main__":
    main()
