"""Tests of policies with weights drawn at random, and of what is measured on them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from deer_policies.deer.budget import CostModel
from deer_policies.deer.drawn import drawn_policy
from deer_policies.deer.measurement import exit_times
from deer_policies.deer.precision import held_bytes
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.stepping import example_observation
from deer_policies.errors import BudgetError, ConfigError
from deer_policies.interfaces import Budget

COSTS = CostModel(deer_nano())


def test_it_acts_without_a_checkpoint():
    policy = drawn_policy(deer_nano())
    chunk, _, report = policy.step(example_observation(policy.info), policy.initial_state())
    assert np.isfinite(chunk.first.values).all()
    assert report.exit_index == 3


def test_it_holds_what_is_counted_and_no_layer_more():
    policy = drawn_policy(deer_nano(), peak=Budget(peak_memory_gib=COSTS.memory_gib(1)))
    assert len(policy.model.layers) == 4
    assert policy.memory_gib == pytest.approx(COSTS.memory_gib(1))
    half = drawn_policy(deer_nano(), precision="bfloat16")
    assert half.model.embedding.weight.dtype == torch.bfloat16
    assert held_bytes(half.model) < 0.7 * held_bytes(drawn_policy(deer_nano()).model)


def test_an_average_can_not_be_solved():
    with pytest.raises(BudgetError, match="no recorded criterion values"):
        drawn_policy(deer_nano(), peak=Budget(average_llm_gmac=1.0))


def test_times_of_every_exit_that_is_loaded():
    times = exit_times(drawn_policy(deer_nano(), peak=Budget(peak_llm_gmac=COSTS.llm_gmac(1))), rounds=2)
    assert [(time.exit_index, time.exit_layer) for time in times] == [(0, 1), (1, 3)]
    assert times[0].total_gmac < times[1].total_gmac
    assert all(0.0 < time.p50_ms <= time.p95_ms for time in times)
    with pytest.raises(ConfigError, match="rounds is 0"):
        exit_times(drawn_policy(deer_nano()), rounds=0)


MEASURED_ALONE = """
import json, torch
from deer_policies.deer.measurement import Memory
before = Memory.now(torch.device("cpu"))
kept = torch.ones(64, 2**20)
after = Memory.now(torch.device("cpu"))
print(json.dumps([before.resident, after.resident, after.largest, after.device, float(kept[-1, -1])]))
"""


def test_memory_of_this_process():
    # In a process of its own: here, memory that other tests gave back may be used again without growing.
    done = subprocess.run([sys.executable, "-c", MEASURED_ALONE], capture_output=True, text=True, check=True)
    before, after, largest, device, last = json.loads(done.stdout)
    assert 250.0 < after - before < 300.0
    assert largest >= after
    assert (device, last) == (0.0, 1.0)
