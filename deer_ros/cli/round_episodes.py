"""The episodes of a recipe's rounds: made where they are missing, also while the round before trains."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deer_policies.deer.config import DeerConfig
from deer_policies.training.episodes import Episode, load_episode
from deer_policies.training.parallel import Processes
from deer_policies.training.recipe import Recipe
from deer_ros.cli.calvin_data import CalvinEpisodes, calvin_split
from deer_ros.cli.training_data import EpisodePlan, make_episodes, plan_round
from deer_sim import instructions

HELD_OUT_SEED = 800
WORDINGS = "training"
"""Also of the held-out episodes, so that the validation wordings stay unseen."""


class RoundEpisodes:
    """Makes and loads what each round adds."""

    def __init__(self, recipe: Recipe, config: DeerConfig, folder: Path, workers: int, processes: Processes) -> None:
        """Args:
        recipe: of the rounds.
        config: of the policy that is trained.
        folder: of the run.
        workers: processes that make episodes.
        processes: those that train; the first of them has the episodes made.
        """
        self._recipe = recipe
        self._config = config
        self._folder = folder
        self._workers = workers
        self._processes = processes

    def policy_of(self, name: str) -> Path:
        """The checkpoint that a phase leaves."""
        return self._folder / f"{name}.safetensors"

    def load(self, index: int) -> list[Episode]:
        """The episodes of a round."""
        if index == 0 and self._recipe.data is not None:
            return self._recorded_episodes("training")
        if self._processes.first:
            self._make(index, threading.Event())
        self._processes.wait()
        return self._loaded(self._plans(index))

    def held_out(self, count: int) -> list[Episode]:
        """Demonstrations apart from those of all rounds, `count` a task."""
        recipe = self._recipe
        if recipe.data is not None:
            return self._recorded_episodes("validation", count)
        folder, seed = self._folder / "episodes" / "validation", recipe.seed * 100 + HELD_OUT_SEED
        plans = plan_round(folder, recipe.scenes, recipe.tasks, count, seed)
        if self._processes.first:
            make_episodes(plans, self._config, None, self._workers, WORDINGS)
        self._processes.wait()
        return self._loaded(plans)

    def sentences(self) -> list[str]:
        """All instructions of recorded data; none without such."""
        return [] if self._recipe.data is None else self._recorded("training").sentences

    @contextmanager
    def made_ahead(self, index: int) -> Iterator[None]:
        """Makes the episodes of a round in the background, if the recipe wants it, until the block is left.

        An error in the block stops it; otherwise it is waited for, and its errors are raised.
        """
        rounds = self._recipe.rounds
        if not self._processes.first or index >= len(rounds) or not rounds[index].ahead:
            yield
            return
        stop = threading.Event()
        errors: list[Exception] = []

        def make() -> None:
            try:
                self._make(index, stop)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=make, name=f"round-{index}")
        thread.start()
        try:
            yield
        except BaseException:
            stop.set()
            raise
        finally:
            thread.join()
        if errors:
            raise errors[0]

    def _plans(self, index: int) -> list[EpisodePlan]:
        recipe = self._recipe
        folder, seed = self._folder / "episodes" / f"round-{index}", recipe.seed * 100 + index
        part = recipe.rounds[index]
        return plan_round(folder, recipe.scenes, recipe.tasks, part.episodes_per_task, seed, part.emphasis)

    def _make(self, index: int, stop: threading.Event) -> None:
        part = self._recipe.rounds[index]
        # While a round trains, the newest policy that is finished is the one of the round before it.
        policy = None if part.expert_acts else self.policy_of(f"round-{index - 1 - part.ahead}")
        make_episodes(self._plans(index), self._config, policy, self._workers, WORDINGS, stop=stop)

    def _loaded(self, plans: list[EpisodePlan]) -> list[Episode]:
        texts = {task: tuple(getattr(instructions, WORDINGS)(task)) for task in self._recipe.tasks}
        return [load_episode(plan.path, texts) for plan in plans]

    def _recorded(self, split: str) -> CalvinEpisodes:
        recipe = self._recipe
        assert recipe.data is not None
        folder = calvin_split(Path(recipe.data.calvin), split)
        return CalvinEpisodes(folder, recipe.tasks, self._config.preprocess, self._folder.parent / "calvin")

    def _recorded_episodes(self, split: str, most_per_task: int | None = None) -> list[Episode]:
        episodes = self._recorded(split)
        if self._processes.first:
            episodes.pack(self._workers)
        self._processes.wait()
        return episodes.load(self._config.head.horizon, most_per_task)
