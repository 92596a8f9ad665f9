"""The film of a chain while it is rolled out: what the policy saw, and the exit that it took at every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from deer_policies.interfaces import ExitReport
from deer_sim.chains import Chain
from deer_sim.environment import TimeStep
from deer_sim.film import HEIGHT, WIDTH, FilmComposer, Shot
from deer_sim.recording import VideoWriter


class ChainFilm:
    """Takes the steps of one chain in order; a context manager that finishes the file."""

    def __init__(
        self, path: Path, chain: Chain, exit_layers: Sequence[int], title: str, budget_gmac: float | None, full_gmac: float
    ) -> None:
        """Args:
        path: of the MP4 file.
        chain: what is rolled out.
        exit_layers: 0-based layer of each exit, shallowest first.
        title: small line in the corner.
        budget_gmac: average budget of the language model, None for no limit; shown against
        full_gmac: its cost with all layers.
        """
        # A chain goes on only after success, so whatever the film has passed was solved.
        self._composer = FilmComposer(exit_layers, [True] * len(chain.subtasks), title, full_gmac)
        self._video = VideoWriter(path, WIDTH, HEIGHT)
        self._instructions = [subtask.instruction for subtask in chain.subtasks]
        self._budget_gmac = budget_gmac
        self._subtask, self._step = -1, 0

    def add(self, now: TimeStep, action: np.ndarray, report: ExitReport | None, first: bool) -> None:
        """One step; `first` for the first of a subtask. Without cameras or a report there is nothing to show."""
