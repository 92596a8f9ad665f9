"""Measures whether exiting stops work: the wall time of a step that stops at each exit, and the sum of its segments.

Run: python benchmarks/exit_times.py [--policy deer-nano] [--steps 200]

Segments are timed in steps through all exits; the exits one after another with a fixed exit, in turns, so that a slow
moment of the machine falls on all of them.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from deer_policies.deer.checkpoint import load_policy
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.policy import example_observation


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--steps", type=int, default=200, help="of each exit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(arguments.policy)
    exits = range(len(policy.info.exit_layers))
    policy.segment_estimate()
    observation, state = example_observation(policy.info), policy.initial_state()
    times_ms: list[list[float]] = [[] for _ in exits]
    for _ in range(arguments.steps):
        for index in exits:
            policy.set_exit_rule(ThresholdRule.fixed(index))
            times_ms[index].append(policy.step(observation, state)[2].latency_ms)
    typical = policy.segment_estimate(quantile=0.5)
    print(f"vision {1e3 * typical.encode_s:.2f} ms, head {1e3 * typical.head_s:.2f}, rest {1e3 * typical.rest_s:.2f}\n")
    print("| exit after layer | layers from the exit before | a step, by segments | a step, measured |")
    print("|---|---|---|---|")
    for index in exits:
        by_segments_s = typical.first_exit_s(ThresholdRule.fixed(0)) + sum(typical.layers_s[1 : index + 1])
        print(
            f"| {policy.info.exit_layers[index] + 1} | {1e3 * typical.layers_s[index]:.2f} ms | "
            f"{1e3 * by_segments_s:.2f} ms | {np.median(times_ms[index]):.2f} ms |"
        )


if __name__ == "__main__":
    main()
