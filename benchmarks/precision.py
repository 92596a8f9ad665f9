"""Compares precisions with float32 on the observations of expert episodes: memory, time, actions, exits taken.

python benchmarks/precision.py --policy deer-nano --episodes 2 --seed 7

Every policy sees the same observations and keeps its own recurrent state; its actions are compared and not executed.
Each of its steps follows one of the float32 policy's, so that both meet the same load of the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from deer_policies.deer.checkpoint import load_policy
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.precision import PRECISIONS, held_bytes
from deer_policies.interfaces import Action, ExitReport, Observation
from deer_sim.tasks import FIXTURE_TASKS
from expert_observations import record


@dataclass(frozen=True)
class Row:
    """A precision against float32 on the same observations.

    Attributes:
        weights_mb: bytes of all weights, in 1e6.
        step_time: CPU time of a step with all layers, median over steps, as a multiple of float32's beside it.
        pose_rms: root mean square difference of the poses with all layers, in units of the normalised action.
        pose_largest: largest difference of one number of a pose.
        gripper_differs: share of steps with another gripper action.
        exit_differs: share of steps at another exit, under the checkpoint's budget.
    """

    precision: str
    weights_mb: float
    step_time: float
    pose_rms: float
    pose_largest: float
    gripper_differs: float
    exit_differs: float


Taken = tuple[Action, ExitReport, float]
"""Action, report and CPU time in s of a step."""


def side_by_side(policies: Sequence[DeerPolicy], episode: Sequence[Observation]) -> Iterator[list[Taken]]:
    """The steps of several policies on each observation of an episode."""
    states = [policy.initial_state() for policy in policies]
    for observation in episode:
        steps = []
        for index, policy in enumerate(policies):
            began = time.process_time()
            chunk, states[index], report = policy.step(observation, states[index])
            steps.append((chunk.first, report, time.process_time() - began))
        yield steps


def compared(name: str, checkpoint: str, reference: DeerPolicy, episodes: Sequence[Sequence[Observation]]) -> Row:
    """Runs a precision beside float32, with all layers and then under the checkpoint's budget."""
    policy = load_policy(checkpoint, precision=name)
    budget, both = policy.budget, (reference, policy)
    runs = []
    for full in (True, False):
        for item in both:
            if full:
                item.set_exit_rule(ThresholdRule.fixed(len(item.info.exit_layers) - 1))
            else:
                item.set_budget(budget)
        runs.append([step for episode in episodes for step in side_by_side(both, episode)])
    deep, budgeted = runs
    actions = np.array([[action.values for action, _, _ in step] for step in deep])
    times = np.array([[cpu_s for _, _, cpu_s in step] for step in deep])
    off = np.abs(actions[:, 1, :6] - actions[:, 0, :6])
    exits = np.array([[report.exit_index for _, report, _ in step] for step in budgeted])
    return Row(
        precision=name,
        weights_mb=held_bytes(policy.model) / 1e6,
        step_time=float(np.median(times[:, 1]) / np.median(times[:, 0])),
        pose_rms=float(np.sqrt(np.mean(off**2))),
        pose_largest=float(off.max()),
        gripper_differs=float(np.mean(actions[:, 1, 6] != actions[:, 0, 6])),
        exit_differs=float(np.mean(exits[:, 1] != exits[:, 0])),
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| precision | weights, MB | step time | pose, RMS | pose, largest | gripper differs | exit differs |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.precision} | {row.weights_mb:.2f} | {row.step_time:.2f} | {row.pose_rms:.5f} | {row.pose_largest:.4f} "
        f"| {row.gripper_differs:.2%} | {row.exit_differs:.1%} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--scene", default="D")
    parser.add_argument("--tasks", nargs="+", default=["fixtures"], help="names, or 'fixtures'")
    parser.add_argument("--episodes", type=int, default=2, help="for each task")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = FIXTURE_TASKS if arguments.tasks == ["fixtures"] else tuple(arguments.tasks)
    reference = load_policy(arguments.policy)
    episodes = record(arguments.scene, tasks, arguments.episodes, arguments.seed, reference.info.horizon)
    print(f"{reference.info.name}: {sum(map(len, episodes))} observations of {len(episodes)} episodes", flush=True)
    rows = []
    for name in arguments.precisions:
        rows.append(compared(name, arguments.policy, reference, episodes))
        print(rows[-1], flush=True)
    print(table(rows))
    if arguments.out is not None:
        settings = {**vars(arguments), "out": str(arguments.out), "sha256": reference.info.weights_sha256}
        arguments.out.write_text(json.dumps({"settings": settings, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
