"""A whole training run: rounds of data and optimisation, exit thresholds, and the checkpoint with its provenance."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deer_policies.deer.action_head import encoded_proprioception
from deer_policies.deer.checkpoint import Checkpoint, find, load, save
from deer_policies.deer.config import changed
from deer_policies.deer.presets import preset
from deer_policies.deer.skills import SkillRecogniser
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget
from deer_policies.training.episodes import Episode, EpisodeStreams
from deer_policies.training.parallel import Processes
from deer_policies.training.read_ahead import ReadAhead
from deer_policies.training.recipe import Recipe
from deer_policies.training.trainer import Trainer
from deer_ros.cli.calibration_run import CalibrationPlan, calibrate_in_simulation
from deer_ros.cli.round_episodes import RoundEpisodes
from deer_ros.cli.teach import recogniser
from deer_ros.cli.training_start import make_readouts, pretrained, starting_model
from deer_sim import instructions
from deer_sim.tasks import TASKS

logger = logging.getLogger(__name__)

CALIBRATION_SEED = 900
SMALLEST_STD = 5e-3


class TrainingRun:
    """Runs a recipe in a folder; whatever is finished there is not done again.

    The processes of a parallel run train together; the first of them makes the episodes and writes the files.
    """

    def __init__(self, recipe: Recipe, folder: Path, workers: int, processes: Processes, save_every_s: float) -> None:
        self._recipe = recipe = replace(recipe, tasks=recipe.tasks or TASKS)
        self._folder = folder
        self._workers = workers
        self._processes = processes
        self._save_every_s = save_every_s
        self._config = changed(preset(recipe.preset), recipe.policy)
        self._claim_folder()
        self._data = RoundEpisodes(recipe, self._config, folder, workers, processes)
        self._start = None if recipe.weights is None else load(find(recipe.weights))
        self._tokenizer = self._kept_tokenizer() if self._start is None else self._start.tokenizer

    def _claim_folder(self) -> None:
        """Keeps the recipe with what is made by it: another's episodes and phases would be taken for its own.

        Further rounds behind those that there were go on from them.
        """
        path, ours = self._folder / "recipe.json", json.loads(json.dumps(self._recipe.to_dict()))
        self._processes.wait()
        if path.exists():
            theirs = json.loads(path.read_text())
            known = {**ours, "rounds": ours["rounds"][: len(theirs["rounds"])]}
            if different := sorted(name for name in ours if known[name] != theirs.get(name)):
                raise ConfigError(
                    f"{self._folder} holds a run with other {', '.join(different)}; choose another --work or delete it"
                )
        self._processes.wait()
        if self._processes.first:
            _write(path, json.dumps(ours, indent=2))

    def _kept_tokenizer(self) -> Tokenizer:
        """Trained once for a run: new wordings must not give the old words other ids."""
        path = self._folder / "tokenizer.json"
        if self._processes.first and not path.exists():
            language = self._config.language
            corpus = [text for task in TASKS for text in instructions.training(task)]
            corpus += self._data.sentences()
            tokenizer = Tokenizer.train(corpus, language.vocabulary, language.max_tokens, self._config.lowercase)
            _write(path, tokenizer.to_json())
        self._processes.wait()
        return Tokenizer.from_json(path.read_text())

    @property
    def _heads(self) -> str:
        """Name of the last phase; it runs again when the recipe has got further rounds."""
        return f"heads-{len(self._recipe.rounds)}"

    def run(self, out: Path) -> None:
        """Makes the checkpoint `out`."""
        recipe = self._recipe
        episodes: list[Episode] = []
        trainer: Trainer | None = None
        for index, part in enumerate(recipe.rounds):
            episodes += self._data.load(index)
            if trainer is None:
                trainer = self._trainer(episodes)
            with self._data.made_ahead(index + 1):
                self._train(trainer, f"round-{index}", part.phase, episodes, part.emphasis)
        assert trainer is not None, "a recipe has at least one round"
        self._train(trainer, self._heads, recipe.heads, episodes)
        if self._processes.first:
            # The other processes are done; from here on nobody waits for them.
            self._processes = Processes()
            trainer.average.cpu()
            self._finish(trainer, out)

    def _train(
        self,
        trainer: Trainer,
        name: str,
        phase: Any,
        episodes: list[Episode],
        emphasis: Mapping[str, int] | None = None,
    ) -> None:
        settings = self._recipe.optimisation
        rng = np.random.default_rng([self._recipe.seed, trainer.steps_done, self._processes.rank])
        batch = self._processes.share(settings.batch)
        streams = EpisodeStreams(episodes, batch, settings.window, rng, settings.carry_state, emphasis)
        logger.info("%s: %d episodes, %d steps of data", name, len(episodes), streams.steps)
        trainer.run(phase, ReadAhead(streams), name)
        path = self._data.policy_of(name)
        if self._processes.first and not path.exists():
            save(path, Checkpoint(trainer.average, self._tokenizer))

    def _trainer(self, episodes: list[Episode]) -> Trainer:
        """Trains a model whose robot state is normalised by the first round's data, or as it was at the start."""
        recipe = self._recipe
        started = None if self._start is None else self._start.model.config.head
        if started is not None and started.use_proprioception:
            config = self._config.with_proprioception_statistics(
                started.proprioception_mean, started.proprioception_std
            )
        else:
            robot = encoded_proprioception(torch.from_numpy(np.concatenate([part.proprioception for part in episodes])))
            config = self._config.with_proprioception_statistics(robot.mean(0), robot.std(0).clamp(min=SMALLEST_STD))
        held_out = [] if recipe.validation is None else self._data.held_out(recipe.validation.episodes_per_task)
        readouts = make_readouts(recipe, config, episodes)
        model = starting_model(recipe, config, None if self._start is None else self._start.model)
        self._start = None
        if self._processes.first:
            # The trainer gives the weights of the first process to all.
            device = self._processes.device
            model = pretrained(model, self._tokenizer, recipe, self._folder, readouts, episodes, device)
        return Trainer(
            model,
            self._tokenizer,
            recipe.optimisation,
            self._folder,
            recipe.seed,
            self._processes,
            recipe.validation,
            held_out,
            readouts,
            self._save_every_s,
        )

    def _skills(self) -> SkillRecogniser | None:
        recipe = self._recipe
        return None if recipe.skills is None else recogniser(recipe.tasks, recipe.skills, recipe.seed)

    def _finish(self, trainer: Trainer, out: Path) -> None:
        """Solves thresholds on the final policy's own steps, from starts and wordings that training has not seen."""
        recipe = self._recipe
        plan = CalibrationPlan(
            scenes=recipe.scenes,
            tasks=recipe.tasks,
            episodes=recipe.calibration_episodes_per_task * len(recipe.tasks) * len(recipe.scenes),
            seed=recipe.seed * 100 + CALIBRATION_SEED,
            criterion=recipe.exit_criterion,
            average_llm_gmac=recipe.average_llm_gmac,
            max_steps=recipe.calibration_max_steps,
        )
        calibration = calibrate_in_simulation(self._data.policy_of(self._heads), plan, self._folder, self._workers)
        budget = Budget(average_llm_gmac=recipe.average_llm_gmac)
        provenance = {"recipe": recipe.to_dict(), "seed": recipe.seed, "commit": _commit(), "torch": torch.__version__}
        skills = self._skills()
        save(out, Checkpoint(trainer.average, self._tokenizer, calibration, budget, provenance, skills=skills))
        logger.info("wrote %s", out)


def _write(path: Path, text: str) -> None:
    """Writes a file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def _commit() -> str:
    """The commit of the source tree, or 'unknown' for an installed package."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
