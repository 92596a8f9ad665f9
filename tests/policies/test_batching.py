"""Batches of episodes: each sample gets bit for bit what it gets alone, and layers behind its exit run without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.batching import CHECKS, ExactBatches
from deer_policies.deer.exits import ALWAYS, ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.deer.view_reuse import ViewReuse
from deer_policies.errors import ConfigError
from deer_policies.interfaces import BatchPolicy, Budget, Observation, Policy

TEXTS = ("open the drawer", "open the drawer", "push the sliding door to the left side", "close the drawer")


@pytest.fixture
def policy() -> DeerPolicy:
    torch.manual_seed(0)
    return DeerPolicy(DeerModel(deer_nano(), auxiliary_heads=False), Tokenizer.train(TEXTS, 300, max_tokens=32))


def episode(number: int, steps: int = 4) -> list[Observation]:
    rng = np.random.default_rng(number)
    return [
        Observation(
            rng.integers(0, 256, (200, 200, 3), dtype=np.uint8),
            rng.integers(0, 256, (84, 84, 3), dtype=np.uint8),
            rng.normal(size=15).astype(np.float32),
            TEXTS[number % len(TEXTS)],
            step / 30.0,
        )
        for step in range(steps)
    ]


def median_rule(policy: DeerPolicy) -> ThresholdRule:
    """Thresholds that make about half of the samples leave at each exit."""
    policy.set_exit_rule(ThresholdRule((-1.0, -1.0, -1.0, ALWAYS)))
    reports = [policy.step(episode(number)[0], policy.initial_state())[2] for number in range(9)]
    return ThresholdRule((*np.median([report.distances[:3] for report in reports], axis=0).tolist(), ALWAYS))


def alone(policy: DeerPolicy, number: int):
    found, state = [], policy.initial_state()
    for observation in episode(number):
        chunk, state, report = policy.step(observation, state)
        found.append((chunk.actions.tolist(), report.exit_index, report.distances, report.encoded_views))
    return found


def together(policy: DeerPolicy, numbers):
    found = {number: [] for number in numbers}
    states = {number: policy.initial_state() for number in numbers}
    for step in range(4):
        answers = policy.step_batch([episode(number)[step] for number in numbers], list(states.values()))
        for number, (chunk, states[number], report) in zip(numbers, answers, strict=True):
            found[number].append((chunk.actions.tolist(), report.exit_index, report.distances, report.encoded_views))
    return found


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("numbers", [(0, 1, 2, 3, 4, 5, 6, 7, 8), (8, 3, 1), (2, 6)])
def test_a_batch_gives_each_episode_what_it_gets_alone(policy, rows, numbers):
    policy.set_batch_rows(rows)
    policy.set_exit_rule(median_rule(policy))
    policy.set_view_reuse(ViewReuse(1e-6))
    found = together(policy, numbers)
    assert found == {number: alone(policy, number) for number in numbers}
    if len(numbers) == 9:
        assert len({step[1] for steps in found.values() for step in steps}) > 1


def test_samples_that_have_left_are_not_computed_further(policy):
    policy.set_exit_rule(median_rule(policy))
    numbers = tuple(range(8))
    for _ in range(CHECKS):
        together(policy, numbers)
    rows = [0] * 5
    for index, segment in enumerate(policy.model.segments.layers):
        segment.register_forward_hook(
            lambda module, given, made, index=index: rows.__setitem__(index, rows[index] + len(given[0]))
        )
    answers = policy.step_batch([episode(number)[0] for number in numbers], [policy.initial_state() for _ in numbers])
    exits = [report.exit_index for _, _, report in answers]
    wanted = [sum(index >= depth for index in exits) for depth in range(4)]
    assert rows == [8, *wanted]
    assert wanted[-1] < 8


class Rounding:
    """A segment that rounds otherwise in batches of four or more; counts the samples it runs on."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, values: torch.Tensor) -> tuple[torch.Tensor]:
        self.batches.append(len(values))
        return (values * 3.0 + (1e-7 if len(values) >= 4 else 0.0),)


def test_a_size_that_rounds_otherwise_is_found_out_and_not_used_again():
    batches, segment = ExactBatches(), Rounding()
    samples = [(torch.tensor([[float(number)]], dtype=torch.float64),) for number in range(4)]
    for _ in range(CHECKS + 2):
        found = batches.run("layers", segment, samples)
        assert [float(value) for (value,) in found] == [0.0, 3.0, 6.0, 9.0]
    assert segment.batches.count(4) == 1
    segment.batches.clear()
    batches.run("layers", segment, samples)
    assert segment.batches == [2, 2]


def test_the_rows_of_a_lone_sample_are_what_batches_agree_with():
    batches, segment = ExactBatches(rows=4), Rounding()
    samples = [(torch.tensor([[float(number)]], dtype=torch.float64),) for number in range(4)]
    for _ in range(CHECKS + 1):
        found = batches.run("layers", segment, samples)
    assert [value.item() for (value,) in found] == pytest.approx([3.0 * number + 1e-7 for number in range(4)], abs=1e-9)
    assert segment.batches[-1] == 4


def test_samples_of_different_shapes_come_back_in_order():
    samples = [(torch.full((1, length), float(length)),) for length in (2, 3, 2, 5, 3)]
    found = ExactBatches().run("layers", lambda values: (values + 1.0,), samples)
    assert [value.shape[1] for (value,) in found] == [2, 3, 2, 5, 3]
    assert [value[0, 0].item() for (value,) in found] == [3.0, 4.0, 3.0, 6.0, 4.0]


def test_an_observation_that_does_not_fit_stops_the_batch(policy):
    broken = replace(episode(1)[0], instruction="")
    with pytest.raises(ConfigError, match="instruction is empty"):
        policy.step_batch([episode(0)[0], broken], [policy.initial_state(), policy.initial_state()])


def test_a_latency_budget_is_about_each_step_alone(policy):
    policy.set_budget(Budget(latency_ms=1e5))
    answers = policy.step_batch([episode(0)[0], episode(1)[0]], [policy.initial_state(), policy.initial_state()])
    assert [report.exit_index for _, _, report in answers] == [3, 3]
    assert answers[0][2].latency_ms != answers[1][2].latency_ms


def test_batch_rows_are_checked(policy):
    with pytest.raises(ConfigError, match="at least 1"):
        policy.set_batch_rows(0)


def test_it_is_a_batch_policy(policy):
    assert isinstance(policy, BatchPolicy)
    assert isinstance(policy, Policy)
