"""What a policy takes on this machine: wall time of a step at each exit, and memory of the process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.stepping import example_observation
from deer_policies.errors import ConfigError

WARM_UP_ROUNDS = 3
MIB = 2.0**20


@dataclass(frozen=True)
class ExitTime:
    """A step that always stops at one exit.

    Attributes:
        exit_index, exit_layer: as in `ExitReport`.
        llm_gmac, total_gmac: computation of the step, for the instruction of `example_observation`.
        p50_ms, p95_ms: wall time that half, and 95 % of the steps stayed below.
    """

    exit_index: int
    exit_layer: int
    llm_gmac: float
    total_gmac: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Memory:
    """Of a process, in MiB.

    Attributes:
        resident: main memory in use now.
        largest: most main memory that was in use at any time so far.
        device: most memory of the CUDA device that tensors have taken; 0 on a CPU.
    """

    resident: float
    largest: float
    device: float = 0.0

    @classmethod
    def now(cls, device: torch.device) -> Memory:
        """What the kernel and PyTorch count (Linux only)."""
        lines = Path("/proc/self/status").read_text().splitlines()
        resident, largest = (
            next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))
            for name in ("VmRSS:", "VmHWM:")
        )
        taken = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else 0.0
        return cls(resident, largest, taken)


def exit_times(policy: DeerPolicy, rounds: int) -> tuple[ExitTime, ...]:
    """Runs a step at each of the loaded exits in every round, so that all meet the same load of the machine.

    The policy stays at its deepest exit afterwards, without a budget.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; measure at least 1")
    observation, state, exits = example_observation(policy.info), policy.initial_state(), len(policy.info.exit_layers)
    found = []
    for _ in range(WARM_UP_ROUNDS + rounds):
        reports = []
        for index in range(exits):
            policy.set_exit_rule(ThresholdRule.fixed(index))
            reports.append(policy.step(observation, state)[2])
        found.append(reports)
    times_ms = np.array([[report.latency_ms for report in reports] for reports in found[WARM_UP_ROUNDS:]])
    p50, p95 = np.quantile(times_ms, (0.5, 0.95), axis=0)
    return tuple(
        ExitTime(report.exit_index, report.exit_layer, report.llm_gmac, report.total_gmac, float(half), float(most))
        for report, half, most in zip(found[-1], p50, p95, strict=True)
    )
