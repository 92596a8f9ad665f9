"""What happened at each control step of a chain: exit, action, what the expert would have done, and touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_policies.interfaces import ExitReport
from deer_sim.chains import Chain
from deer_sim.environment import TimeStep
from deer_sim.expert import Expert


@dataclass(frozen=True)
class StepRecord:
    """The control steps of one chain, in order.

    Attributes:
        subtask: (steps,) int16, its number in the chain.
        asked: (steps,) bool, whether the policy was asked; else the action is a later one of a chunk.
        exit_index: (steps,) int16, of the policy step that the action comes from.
        action: (steps, 7) float32, executed.
        expert_action: (steps, 7) float32, the scripted expert's in the same state.
        touching: (steps,) bool, whether the robot touched anything when the step began.
    """

    subtask: np.ndarray
    asked: np.ndarray
    exit_index: np.ndarray
    action: np.ndarray
    expert_action: np.ndarray
    touching: np.ndarray

    @classmethod
    def load(cls, path: Path) -> StepRecord:
        """From the file that `StepRecorder.save` wrote."""
        with np.load(path) as file:
            return cls(**file)


class StepRecorder:
    """Takes the steps of one chain in order."""

    def __init__(self, chain: Chain, expert: Expert) -> None:
        """Args:
        chain: what is rolled out.
        expert: is asked what it would do at each step, and told what was done instead.
        """
        self._chain = chain
        self._expert = expert
        self._rows: list[tuple[int, bool, int, np.ndarray, np.ndarray, bool]] = []
        self._exit_index = 0

    def add(self, number: int, now: TimeStep, action: np.ndarray, report: ExitReport | None) -> None:
        """One control step of subtask `number`; without a report its action was decided on before."""
        if report is not None:
            self._exit_index = report.exit_index
        if not self._rows:
            self._expert.reset(now)
        if not self._rows or number != self._rows[-1][0]:
            self._expert.begin(self._chain.subtasks[number].task, now)
        wanted = self._expert.action(now)
        self._expert.executed(action)
        touching = bool(now.state.robot_contacts)
        self._rows.append((number, report is not None, self._exit_index, action.copy(), wanted, touching))

    def save(self, path: Path) -> None:
        """Writes the file (.npz); its folder is made."""
        subtask, asked, exit_index, action, expert_action, touching = (
            np.array(column) for column in zip(*self._rows, strict=True)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            subtask=subtask.astype(np.int16),
            asked=asked,
            exit_index=exit_index.astype(np.int16),
            action=action.astype(np.float32),
            expert_action=expert_action.astype(np.float32),
            touching=touching,
        )
