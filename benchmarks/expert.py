"""Scores the scripted expert: all tasks, scenes and random starts, or pushed off its way; prints a table, writes JSON.

python benchmarks/expert.py --starts 20 --workers 2 --out expert.json
python benchmarks/expert.py --tasks fixtures --push-rate 0.02 --out expert_pushed.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from deer_sim.collection import Disturbance, begin_at, collect_episode
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.rollout import MAX_STEPS
from deer_sim.starts import sample_start
from deer_sim.statistics import wilson_interval
from deer_sim.tasks import FIXTURE_TASKS, TASKS
from deer_sim.workers import worker_pool


@dataclass(frozen=True)
class Score:
    """How the expert did in one task of one scene: solved starts, their control steps, and the starts that failed."""

    scene: str
    task: str
    starts: int
    solved: int
    steps: list[int]
    failed: list[int]


def score(scene: str, task: str, starts: int, seed: int, push_rate: float) -> Score:
    """Runs the expert from each start; start i follows from `seed` and i alone."""
    environment, expert = PlayTable(scene, cameras=False), Expert(scene)
    disturbance = Disturbance(push_rate, push_steps=(10, 20)) if push_rate else None
    steps: list[int] = []
    failed: list[int] = []
    for index in range(starts):
        rng = np.random.default_rng([seed, index, TASKS.index(task)])
        first, _ = begin_at(environment, expert, sample_start(task, scene, rng), int(rng.integers(2**31)))
        episode = collect_episode(environment, expert, task, task, first, rng, disturbance)
        if episode.success:
            steps.append(episode.steps)
        else:
            failed.append(index)
    environment.close()
    return Score(scene, task, starts, len(steps), steps, failed)


def table(scores: Sequence[Score], scenes: Sequence[str], tasks: Sequence[str]) -> str:
    """Markdown: a row for each task; solved starts (mean steps) for each scene."""
    by_key = {(item.scene, item.task): item for item in scores}
    lines = ["| task | " + " | ".join(scenes) + " |", "|---|" + "---|" * len(scenes)]
    for task in tasks:
        cells = []
        for scene in scenes:
            item = by_key.get((scene, task))
            mean = f" ({np.mean(item.steps):.0f})" if item and item.steps else ""
            cells.append(f"{item.solved}/{item.starts}{mean}" if item else "")
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", default="ABCD")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="names, 'all' or 'fixtures'")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--push-rate", type=float, default=0.0, help="probability a step of a push of 10 to 20 steps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    tasks = {"all": TASKS, "fixtures": FIXTURE_TASKS}.get(arguments.tasks[0], tuple(arguments.tasks))
    began = time.monotonic()
    scores: list[Score] = []
    with worker_pool(arguments.workers) as pool:
        futures = [
            pool.submit(score, scene, task, arguments.starts, arguments.seed, arguments.push_rate)
            for scene in arguments.scenes
            for task in tasks
        ]
        for future in as_completed(futures):
            scores.append(future.result())
            item = scores[-1]
            print(f"{item.scene} {item.task}: {item.solved}/{item.starts}, failed {item.failed}", flush=True)
    print(table(scores, arguments.scenes, tasks))
    solved, starts = sum(item.solved for item in scores), sum(item.starts for item in scores)
    low, high = wilson_interval(solved, starts)
    print(f"solved {solved}/{starts} = {solved / starts:.4f} (95 % interval {low:.4f} to {high:.4f})")
    worst = min(scores, key=lambda item: item.solved / item.starts)
    print(f"worst: {worst.task} in {worst.scene} with {worst.solved}/{worst.starts}; limit {MAX_STEPS} control steps")
    print(f"{time.monotonic() - began:.0f} s with {arguments.workers} workers")
    settings = {"seed": arguments.seed, "starts": arguments.starts, "push_rate": arguments.push_rate}
    text = json.dumps({"settings": settings, "scores": [asdict(item) for item in scores]}, indent=1)
    arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
