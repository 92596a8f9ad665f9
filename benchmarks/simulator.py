"""Measures PlayTable: CPU time of a control step, of each camera, of a reset and of building an environment.

Run: python benchmarks/simulator.py [--scene D] [--repeats 200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import sample_start


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a call in ms; CPU time, so that a busy machine matters less."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return 1e3 * float(np.median(times))


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", default="D", help="A, B, C or D")
    parser.add_argument("--repeats", type=int, default=200, help="calls per measurement")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    start = sample_start("open_drawer", arguments.scene, rng)
    actions = iter(rng.uniform(-0.3, 0.3, size=(10 * arguments.repeats, 7)))
    rows: list[tuple[str, float]] = []
    for cameras in (False, True):
        label = "with both cameras" if cameras else "without cameras"
        with PlayTable(arguments.scene, cameras) as table:
            table.reset(robot_obs=start.robot_obs, scene_obs=start.scene_obs)
            rows.append((f"step {label}", median_ms(lambda table=table: table.step(next(actions)), arguments.repeats)))
            reset = median_ms(
                lambda table=table: table.reset(robot_obs=start.robot_obs, scene_obs=start.scene_obs),
                max(5, arguments.repeats // 10),
            )
            rows.append((f"reset {label}", reset))
    build = median_ms(lambda: PlayTable(arguments.scene).close(), max(3, arguments.repeats // 40))
    rows.append(("make and close an environment", build))
    print("| PlayTable, scene " + arguments.scene + " | CPU ms |\n|---|---|")
    for label, value in rows:
        print(f"| {label} | {value:.1f} |")


if __name__ == "__main__":
    main()
