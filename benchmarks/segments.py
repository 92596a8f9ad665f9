"""Shows that exiting stops work: wall time of whole steps at each exit against the sum of the segments up to it.

Run: python benchmarks/segments.py [--rounds 100] [--policy deer-nano]

Measures a checkpoint, and random weights in a geometry whose language model outweighs all else. Every round times each
segment and each whole step once; what counts of each is the time that a tenth of the rounds stay below, so that other
work on the machine matters less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import load_policy
from deer_policies.deer.config import changed
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.stepping import example_observation

DEEP = {
    "name": "deep",
    "language": {"dim": 768, "heads": 12, "cross_attention_heads": 8, "cross_attention_head_dim": 64},
}
WARM_UP_ROUNDS = 3
QUANTILE = 0.1


def deep_policy(like: DeerPolicy) -> DeerPolicy:
    """Random weights: the eyes and exits of `deer-nano`, layers of 64 times the weights."""
    torch.manual_seed(0)
    config = changed(deer_nano(like.tokenizer.vocabulary), DEEP)
    return DeerPolicy(DeerModel(config, auxiliary_heads=False), like.tokenizer)


def segments(policy: DeerPolicy) -> dict[str, Callable[[], object]]:
    """What a step is made of, each as a call on inputs that are ready."""
    observation, model = example_observation(policy.info), policy.model
    ids, mask = policy.tokenizer.encode_batch([observation.instruction])
    text, state = model.text(ids, mask), model.head.initial_state(1)
    images = stack_views(observation.rgb_static, observation.rgb_gripper, model.config.preprocess)
    media = model.media(images[None])
    robot = torch.from_numpy(observation.proprioception)[None, None]
    calls: dict[str, Callable[[], object]] = {
        "resize": lambda: stack_views(observation.rgb_static, observation.rgb_gripper, model.config.preprocess),
        "encode": lambda: model.segments.encode(images),
    }
    x = text.embedding
    for index, part in enumerate(model.segments.layers):
        calls[f"layers {index}"] = lambda part=part, x=x: part(x, text.mask, text.bias, media)
        x, feature = part(x, text.mask, text.bias, media)
    calls["head"] = lambda: model.segments.head(feature[:, None], robot, state)
    return calls


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@torch.inference_mode()
def measured(policy: DeerPolicy, rounds: int) -> dict[str, float]:
    """Seconds of each segment, and of a whole step at each fixed exit (keys 'step k')."""
    calls = segments(policy)
    observation, state = example_observation(policy.info), policy.initial_state()
    found = []
    for _ in range(WARM_UP_ROUNDS + rounds):
        times = {name: seconds(call) for name, call in calls.items()}
        for index in range(len(policy.info.exit_layers)):
            policy.set_exit_rule(ThresholdRule.fixed(index))
            times[f"step {index}"] = seconds(lambda: policy.step(observation, state))
        found.append(times)
    counted = found[WARM_UP_ROUNDS:]
    return {name: float(np.quantile([times[name] for times in counted], QUANTILE)) for name in counted[0]}


def report(policy: DeerPolicy, times: dict[str, float]) -> None:
    """Prints a Markdown table for one policy."""
    last = len(policy.info.exit_layers) - 1
    tokens = len(policy.tokenizer.encode(example_observation(policy.info).instruction))
    sums = [
        sum(times[name] for name in ("resize", "encode", *(f"layers {part}" for part in range(index + 2)), "head"))
        for index in range(last + 1)
    ]
    shares = ", ".join(f"{name} {times[name] / sums[last]:.1%}" for name in times if not name.startswith("step"))
    print(f"\n{policy.info.name}, a full step of {1e3 * times[f'step {last}']:.1f} ms; of all segments: {shares}\n")
    print("| exit after layer | step / its segments | step / full step | its segments / all | GMAC / all |")
    print("|---|---|---|---|---|")
    for index, layer in enumerate(policy.info.exit_layers):
        step = times[f"step {index}"]
        gmac = policy.costs.total_gmac(index, tokens) / policy.costs.total_gmac(last, tokens)
        ratios = (step / sums[index], step / times[f"step {last}"], sums[index] / sums[last], gmac)
        print(f"| {layer + 1} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--rounds", type=int, default=100, help="measurements of each segment and step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(arguments.policy)
    for measured_policy in (policy, deep_policy(policy)):
        report(measured_policy, measured(measured_policy, arguments.rounds))


if __name__ == "__main__":
    main()
