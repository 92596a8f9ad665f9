"""Measures the reuse of views on recorded episodes: views left out, computation, and error of the action.

Run: python benchmarks/view_reuse.py [--policy deer-nano] [--episodes 1] [--bounds 0.5 1 2 4]

The expert, pushed at times, does each of the eight fixture tasks (30 Hz, both cameras); the policy looks at what it
saw, once with every view encoded and once for each bound, each time with the recurrent state of its own run. The error
is the root mean square difference of the pose part of the actions, in units of the normalised action.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from deer_policies.deer.checkpoint import load_policy
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.view_reuse import ViewReuse
from deer_policies.interfaces import ExitReport, Observation
from deer_sim.tasks import FIXTURE_TASKS
from expert_observations import record


def followed(policy: DeerPolicy, episodes: list[list[Observation]]) -> tuple[np.ndarray, list[ExitReport]]:
    """Actions (steps, 7) and reports over all episodes."""
    actions, reports = [], []
    for episode in episodes:
        state = policy.initial_state()
        for observation in episode:
            chunk, state, report = policy.step(observation, state)
            actions.append(chunk.first.values)
            reports.append(report)
    return np.stack(actions), reports


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--scene", default="D", help="PlayTable scene: A, B, C or D")
    parser.add_argument("--episodes", type=int, default=1, help="of each task")
    parser.add_argument("--seed", type=int, default=5, help="of the starts")
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0], help="0..255")
    parser.add_argument("--most-steps", type=int, nargs="+", default=[ViewReuse().most_steps], help="see ViewReuse")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(arguments.policy)
    episodes = record(arguments.scene, FIXTURE_TASKS, arguments.episodes, arguments.seed, policy.info.horizon)
    always, reports = followed(policy, episodes)
    steps = len(reports)
    print(f"{len(episodes)} episodes, {steps} steps; RMS of a pose action: {_rms(always[:, :6]):.3f}\n")
    print("| below | most steps | static left out | gripper left out | whole policy | pose error | gripper changed |")
    print("|---|---|---|---|---|---|---|")
    whole = sum(report.total_gmac for report in reports)
    for most_steps in arguments.most_steps:
        for bound in arguments.bounds:
            policy.set_view_reuse(ViewReuse(bound, most_steps))
            actions, reports = followed(policy, episodes)
            kept = 1.0 - np.array([report.encoded_views for report in reports]).mean(0)
            total = sum(report.total_gmac for report in reports) / whole
            changed = (actions[:, 6] != always[:, 6]).mean()
            print(
                f"| {bound:g} | {most_steps} | {kept[0]:.1%} | {kept[1]:.1%} | {total:.1%} | "
                f"{_rms(actions[:, :6] - always[:, :6]):.4f} | {changed:.1%} |"
            )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


if __name__ == "__main__":
    main()
