"""Where does the policy think longer? Layers run by task, phase, touch and success, and after moves against the expert.

    deer eval --policy P --sequences 200 --keep-steps --out runs/thinking
    python benchmarks/thinking.py runs/thinking --films runs/thinking-films

Reads a finished evaluation and the steps that it kept, and writes a section into docs/results.md. With --films it also
films the easiest and the hardest tasks, with the exit of each step, by running a chain with each of them again.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.cli.evaluation_report import REPORT
from deer_sim.results import ChainResult, SubtaskResult, read_results
from deer_sim.statistics import bootstrap_ratio
from deer_sim.step_record import StepRecord
from paper.cells import Deer, deer
from paper.document import write_section
from paper.markdown import table

SEED = 0
"""Of the bootstrap."""
NAMED = 3
"""Easiest and hardest tasks that are named and filmed."""
FEWEST = 3
"""Attempts without which a task is not named."""
APPROACH = 10
"""Control steps before a touch that count as coming near."""
AFTER = 5
"""Control steps after a move against the expert that are looked at."""
SMALL = 0.2
"""A move shorter than this, in units of the normalised action, points nowhere in particular."""


@dataclass(frozen=True)
class Steps:
    """The policy steps of one chain.

    Attributes:
        layers: (steps,) that ran.
        labels: (steps,) bool each, by name: which steps count for it.
    """

    layers: np.ndarray
    labels: dict[str, np.ndarray]


def labelled(result: ChainResult, record: StepRecord, exit_layers: Sequence[int]) -> Steps:
    """What is asked of each policy step of a chain; thirds, touches and moves are found among its control steps."""
    layers = np.array(exit_layers)[record.exit_index] + 1
    phase, solved = np.empty(len(layers), int), np.empty(len(layers), bool)
    near, after = np.zeros(len(layers), bool), np.zeros(len(layers), bool)
    against = against_expert(record.action, record.expert_action)
    for number, subtask in enumerate(result.subtasks):
        steps = np.flatnonzero(record.subtask == number)
        phase[steps] = 3 * np.arange(len(steps)) // len(steps)
        solved[steps] = subtask.success
        near[steps] = before(record.touching[steps], APPROACH)
        after[steps] = before(against[steps][::-1], AFTER)[::-1]
    touching = record.touching
    labels = {
        "first third of a subtask": phase == 0,
        "second third": phase == 1,
        "last third": phase == 2,
        "touches something": touching,
        f"up to {APPROACH} steps before it does": near & ~touching,
        "moves freely": ~near & ~touching,
        f"up to {AFTER} steps after a move against the expert's": after,
        "no such move shortly before": ~after,
        "subtasks that were solved": solved,
        "subtasks that failed": ~solved,
    }
    return Steps(layers[record.asked], {name: mask[record.asked] for name, mask in labels.items()})


def against_expert(action: np.ndarray, expert: np.ndarray) -> np.ndarray:
    """Whether each action (steps, 7) moves the tool away from where the expert's would, or the gripper the other way.

    Returns:
        (steps,) bool.
    """
    moves = (np.linalg.norm(action[:, :3], axis=1) > SMALL) & (np.linalg.norm(expert[:, :3], axis=1) > SMALL)
    away = (action[:, :3] * expert[:, :3]).sum(axis=1) < 0.0
    return (moves & away) | ((action[:, 6] > 0.0) != (expert[:, 6] > 0.0))


def before(happens: np.ndarray, steps: int) -> np.ndarray:
    """Whether something (bool) happens in one of the next `steps` steps."""
    soon = np.zeros(len(happens), bool)
    for ahead in range(1, steps + 1):
        soon[:-ahead] |= happens[ahead:]
    return soon


def depth_table(chains: Sequence[Steps]) -> str:
    """Mean layers of the steps under each label, with intervals over chains."""
    rows = []
    every = np.concatenate([chain.layers for chain in chains])
    for name in ("all steps", *chains[0].labels):
        masks = [chain.labels.get(name, np.ones(len(chain.layers), bool)) for chain in chains]
        counts = np.array([float(mask.sum()) for mask in masks])
        sums = np.array([float(chain.layers[mask].sum()) for chain, mask in zip(chains, masks, strict=True)])
        if counts.sum() == 0:
            continue
        low, high = bootstrap_ratio(sums, counts, np.random.default_rng(SEED))
        depth = f"{sums.sum() / counts.sum():.2f} [{low:.2f}, {high:.2f}]"
        rows.append([name, f"{counts.sum() / len(every):.1%}", depth])
    return table(["policy steps", "share", "layers"], rows)


def task_table(report: dict[str, Any], results: Sequence[ChainResult]) -> str:
    """Tasks by the layers that they take, most first."""
    rows = []
    for task, entry in report["per_task"].items():
        tried = [subtask for result in results for subtask in result.subtasks if subtask.task == task]
        rows.append((mean_layers(tried), task, entry, [subtask for subtask in tried if subtask.success]))
    lines = [
        [
            task,
            f"{entry['success']}/{entry['attempts']}",
            f"{entry['mean_steps']:.0f}",
            f"{layers:.2f}",
            f"{mean_layers(solved):.2f}" if solved else "",
        ]
        for layers, task, entry, solved in sorted(rows, key=lambda row: -row[0])
    ]
    return table(["task", "solved", "steps", "layers", "layers, where solved"], lines)


def mean_layers(subtasks: Sequence[SubtaskResult]) -> float:
    """Over steps, which weigh equally."""
    steps = sum(subtask.steps for subtask in subtasks)
    return sum(subtask.mean_exit_layers * subtask.steps for subtask in subtasks) / steps


def extremes(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names of the easiest and of the hardest tasks: by success, then by the steps that they take."""
    tried = {task: entry for task, entry in report["per_task"].items() if entry["attempts"] >= FEWEST}
    order = sorted(tried, key=lambda task: (-tried[task]["rate"], tried[task]["mean_steps"]))
    count = min(NAMED, len(order) // 2)
    return order[:count], order[len(order) - count :][::-1]


def shown(tasks: Sequence[str], results: Sequence[ChainResult], success: bool) -> dict[str, str]:
    """For each task a chain, by key, in which it came out like this; or any in which it was tried."""
    found: dict[str, str] = {}
    for result in results:
        for subtask in result.subtasks:
            if subtask.task in tasks and (subtask.success == success or subtask.task not in found):
                found[subtask.task] = result.key
    return {task: found[task] for task in tasks}


def film(report: dict[str, Any], keys: Sequence[str], folder: Path, run: Deer) -> None:
    """Runs these chains again as they were run, and films them."""
    _, *arguments = shlex.split(report["command"])
    run([*arguments, "--chains", *keys, "--films", str(len(keys)), "--out", str(folder)])


def section(folder: Path, films: Path | None, run: Deer = deer) -> str:
    """The Markdown of an evaluation, and the films that go with it.

    Raises:
        ConfigError: if the evaluation is not finished, or kept no steps.
    """
    path = folder / REPORT
    if not path.is_file():
        raise ConfigError(f"{folder} has no {REPORT}; finish it with the `deer eval` command that began it")
    report, results = json.loads(path.read_text()), read_results(folder)
    if lacking := [result.key for result in results if not result.steps]:
        raise ConfigError(
            f"{folder} kept no steps of {len(lacking)} chains; evaluate with --keep-steps into a new folder"
        )
    chains = [
        labelled(result, StepRecord.load(folder / result.steps), report["exit_layers"])
        for result in sorted(results, key=lambda result: result.key)
    ]
    chains_are = "sequences" if report["mode"] == "sequences" else "starts"
    easy, hard = extremes(report)
    filmed = {**shown(hard, results, success=False), **shown(easy, results, success=True)}
    parts = [
        f"## Where `{report['policy']}` thinks longer",
        f"```console\n{report['command']}\n```",
        f"{report['sequences']} {chains_are}, seed {report['seed']}, {report['environment']}, weights "
        f"{report['weights_sha256'][:16]}, commit {report['commit'] or 'unknown'}. Intervals are 95 %, bootstrapped "
        "over chains. A move is against the expert's if it takes the tool away from where the scripted expert would go "
        "from the same state, or the gripper the other way.",
        depth_table(chains),
        task_table(report, results),
    ]
    if easy:
        parts.append(f"Hardest: {', '.join(hard)}. Easiest: {', '.join(easy)}.")
    if films is not None and filmed:
        film(report, sorted(set(filmed.values())), films, run)
        parts.append(
            "Films with the exit of each step: "
            + ", ".join(f"{task} (`{key.replace('/', '-')}.mp4`)" for task, key in filmed.items())
            + "."
        )
    return "\n\n".join(parts)


def main() -> None:
    """Writes the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="folder that `deer eval --keep-steps --out` wrote")
    parser.add_argument("--films", type=Path, metavar="FOLDER", help="film the hardest and the easiest tasks into this")
    parser.add_argument("--results", type=Path, default=Path("docs/results.md"), help="document to write into")
    arguments = parser.parse_args()
    try:
        text = section(arguments.evaluation, arguments.films)
    except ConfigError as error:
        raise SystemExit(f"thinking: {error}") from error
    policy = json.loads((arguments.evaluation / REPORT).read_text())["policy"]
    write_section(arguments.results, f"thinking {policy}", text)
    print(text)


if __name__ == "__main__":
    main()
