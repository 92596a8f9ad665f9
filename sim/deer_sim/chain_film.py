"""The film of a chain while it is rolled out: what the policy saw, and the exit that it took at every policy step."""

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
        self, path: Path, chain: Chain, exit_layers: Sequence[int], title: str, budget_gmac: float | None
    ) -> None:
        """Args:
        path: of the MP4 file.
        chain: what is rolled out.
        exit_layers: 0-based layer of each exit, shallowest first.
        title: small line in the corner.
        budget_gmac: average budget of the language model, None for no limit.
        """
        self._video = VideoWriter(path, WIDTH, HEIGHT)
        self._chain = chain
        self._exit_layers = exit_layers
        self._title = title
        self._budget_gmac = budget_gmac
        self._composer: FilmComposer | None = None
        self._report: ExitReport | None = None
        self._number, self._began = -1, 0

    def add(self, number: int, now: TimeStep, action: np.ndarray, report: ExitReport | None) -> None:
        """One control step of subtask `number`; where the policy was not asked, its last report stays."""
        assert now.rgb_static is not None
        assert now.rgb_gripper is not None
        last = self._report = report or self._report
        assert last is not None
        if self._composer is None:
            # A chain goes on only after success, so whatever the film has passed was solved.
            solved = [True] * len(self._chain.subtasks)
            self._composer = FilmComposer(self._exit_layers, solved, self._title, last.full_llm_gmac)
        if number != self._number:
            self._number, self._began = number, now.step
        shot = Shot(
            rgb_static=now.rgb_static,
            rgb_gripper=now.rgb_gripper,
            instruction=self._chain.subtasks[number].instruction,
            subtask=number,
            step=now.step - self._began + 1,
            report=last,
            budget_gmac=self._budget_gmac,
            asked=report is not None,
        )
        self._video.add(self._composer.frame(shot))

    def __enter__(self) -> ChainFilm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._video.close()
