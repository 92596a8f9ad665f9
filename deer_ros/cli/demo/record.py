"""What a demonstration leaves behind: each subtask with its steps, and the report.json that is made of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_sim.film import Shot


@dataclass(frozen=True)
class SubtaskRecord:
    """One subtask of the chain.

    Attributes:
        task: name of the success condition, for example 'open_drawer'.
        instruction: the words that the robot was given.
        success: whether the condition held within the time.
        reason: how it ended, in words.
        steps: control steps that the robot took.
        budget_gmac: average budget of the language model when it began, None for no limit.
        shots: one for each control step that was seen and reported.
    """

    task: str
    instruction: str
    success: bool
    reason: str
    steps: int
    budget_gmac: float | None
    shots: tuple[Shot, ...]

    def as_json(self, exit_count: int) -> dict[str, Any]:
        """The subtask's entry in report.json; means and quantiles are None where not a single step was taken.

        `steps` are control steps. Costs, exits and the places of budget changes are by policy steps: control steps at
        which the policy was asked, one a chunk of actions.
        """
        asked = [shot for shot in self.shots if shot.asked]
        reports = [shot.report for shot in asked]
        taken = Counter(report.exit_index for report in reports)
        latencies = [report.latency_ms for report in reports]
        changes = []
        budget = self.budget_gmac
        for policy_step, shot in enumerate(asked, start=1):
            if shot.budget_gmac != budget:
                budget = shot.budget_gmac
                changes.append({"step": policy_step, "budget": budget})
        return {
            "task": self.task,
            "instruction": self.instruction,
            "success": self.success,
            "steps": self.steps,
            "policy_steps": len(asked),
            "exit_counts": {str(index): taken[index] for index in range(exit_count)},
            "mean_gmac": _mean([report.llm_gmac for report in reports]),
            "full_gmac": reports[-1].full_llm_gmac if reports else None,
            "latency_ms": {"p50": _quantile(latencies, 0.5), "p99": _quantile(latencies, 0.99)},
            "budget": self.budget_gmac,
            "budget_changes": changes,
            "mean_total_gmac": _mean([report.total_gmac for report in reports]),
            "full_total_gmac": reports[-1].full_total_gmac if reports else None,
            "reason": self.reason,
            "exits": [report.exit_index for report in reports],
        }


@dataclass(frozen=True)
class DemoRecord:
    """A whole demonstration, complete or cut short.

    Attributes:
        policy: name of the policy.
        weights_sha256: of its weight file.
        exit_layers: 0-based layer of each exit, shallowest first.
        full_gmac: cost of a policy step of the whole language model at the usual length of an instruction, which
            budgets are parts of. The `full_gmac` of a subtask is for its own instruction.
        seed: of the sequence, its start and its wordings.
        command: that makes this demonstration again.
        started: date and time, ISO 8601 with the offset from UTC.
        commit: of the code, empty where there is no repository.
        versions: of what the outcome depends on.
        planned: number of subtasks in the chain.
        environment: for example 'playtable:D'; empty until the simulator runs, and so is
        renderer: what drew the images.
        subtasks: those that were begun.
        video: file name of the film beside the report, empty if there is none.
    """

    policy: str
    weights_sha256: str
    exit_layers: tuple[int, ...]
    full_gmac: float
    seed: int
    command: str
    started: str
    commit: str
    versions: dict[str, str]
    planned: int
    environment: str = ""
    renderer: str = ""
    subtasks: tuple[SubtaskRecord, ...] = ()
    video: str = ""

    @property
    def solved(self) -> int:
        """Number of subtasks that were solved."""
        return sum(subtask.success for subtask in self.subtasks)

    @property
    def shots(self) -> list[Shot]:
        """The control steps of all subtasks, in order."""
        return [shot for subtask in self.subtasks for shot in subtask.shots]

    def as_json(self) -> dict[str, Any]:
        """The content of report.json; costs in 1e9 MAC a policy step, of the language model unless named 'total'."""
        return {
            "subtasks": [subtask.as_json(len(self.exit_layers)) for subtask in self.subtasks],
            "seed": self.seed,
            "versions": self.versions,
            "commit": self.commit,
            "renderer": self.renderer,
            "video": self.video,
            "planned": self.planned,
            "policy": self.policy,
            "weights_sha256": self.weights_sha256,
            "exit_layers": list(self.exit_layers),
            "full_gmac": self.full_gmac,
            "environment": self.environment,
            "command": self.command,
            "started": self.started,
        }

    def write_json(self, path: Path) -> None:
        """Writes report.json."""
        path.write_text(json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _quantile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None
