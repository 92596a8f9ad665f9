"""What the client of a stack gives back: results, feedback, reports and frames as plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from deer_policies.interfaces import ExitReport


class Outcome(enum.Enum):
    """How an instruction ended; the first four are the results of the action `FollowInstruction`."""

    DONE = 0
    TIMEOUT = 1
    CANCELLED = 2
    FAILED = 3
    REJECTED = 4


@dataclass(frozen=True)
class FollowResult:
    """Outcome of one instruction, the reason in words, and the control steps taken."""

    outcome: Outcome
    reason: str
    steps: int


@dataclass(frozen=True)
class StepFeedback:
    """What the policy tells each time it was asked, which is once a chunk of actions; `step` counts control steps.

    Units are those of `deer_policies.interfaces.ExitReport`.
    """

    step: int
    exit_index: int
    exit_layer: int
    distances: tuple[float, ...]
    llm_gmac: float
    full_llm_gmac: float
    latency_ms: float


@dataclass(frozen=True)
class StepAction:
    """That a control step was taken: the stamp of the frame that it answers, its number since the goal began, and the
    place of its action in the chunk; 0 where the policy was asked."""

    stamp_s: float
    step: int
    chunk_index: int


@dataclass(frozen=True)
class StepReport:
    """An exit report as published: the stamp and the number of the control step at which the policy was asked, and the
    budget in force (0: none)."""

    stamp_s: float
    step: int
    exit_count: int
    budget_average_llm_gmac: float
    report: ExitReport


@dataclass(frozen=True)
class Frame:
    """Both camera images (rows, columns, 3) uint8 RGB of one instant, and its stamp."""

    stamp_s: float
    rgb_static: np.ndarray
    rgb_gripper: np.ndarray


@dataclass(frozen=True)
class SafetyReport:
    """State of the safety node: 'STOPPED', 'HOLDING' or 'ARMED', and why."""

    state: str
    reason: str


@dataclass(frozen=True)
class SimulatorInfo:
    """Which environment runs ('playtable:D') and what draws its images."""

    environment: str
    renderer: str
