"""A whole training run: rounds of data and optimisation, exit thresholds, and the checkpoint with its provenance."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deer_policies.deer.action_head import encoded_proprioception
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import Checkpoint, load, save
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.presets import preset
from deer_policies.deer.skills import SkillRecogniser
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget
from deer_policies.training.episodes import Episode, EpisodeStreams, load_episode
from deer_policies.training.language_pretraining import pretrain_language
from deer_policies.training.parallel import Processes
from deer_policies.training.read_ahead import ReadAhead
from deer_policies.training.recipe import Recipe, Round
from deer_policies.training.trainer import Trainer
from deer_ros.cli.calibration_run import CalibrationPlan, calibrate_in_simulation
from deer_ros.cli.calvin_data import CalvinEpisodes, calvin_split
from deer_ros.cli.teach import recogniser
from deer_ros.cli.training_data import make_episodes, plan_round
from deer_sim import instructions
from deer_sim.tasks import TASKS

logger = logging.getLogger(__name__)

CALIBRATION_SEED = 900
VALIDATION = "validation"
VALIDATION_SEED = 800
SMALLEST_STD = 5e-3


class TrainingRun:
    """Runs a recipe in a folder; whatever is finished there is not done again.

    The processes of a parallel run train together; the first of them makes the episodes and writes the files.
    """

    def __init__(self, recipe: Recipe, folder: Path, workers: int, processes: Processes, save_every_s: float) -> None:
        self._recipe = recipe
        self._folder = folder
        self._workers = workers
        self._processes = processes
        self._save_every_s = save_every_s
        self._config = changed(preset(recipe.preset), recipe.policy)
        self._claim_folder()
        self._start = None if recipe.weights is None else load(recipe.weights)
        self._tokenizer = self._kept_tokenizer() if self._start is None else self._start.tokenizer

    def _claim_folder(self) -> None:
        """Keeps the recipe with what is made by it: another's episodes and phases would be taken for its own."""
        path, ours = self._folder / "recipe.json", json.loads(json.dumps(self._recipe.to_dict()))
        if self._processes.first and not path.exists():
            _write(path, json.dumps(ours, indent=2))
        self._processes.wait()
        theirs = json.loads(path.read_text())
        if different := sorted(name for name in ours if ours[name] != theirs.get(name)):
            raise ConfigError(
                f"{self._folder} holds a run with other {', '.join(different)}; choose another --work or delete it"
            )

    def _kept_tokenizer(self) -> Tokenizer:
        """Trained once for a run: new wordings must not give the old words other ids."""
        path = self._folder / "tokenizer.json"
        if self._processes.first and not path.exists():
            language = self._config.language
            corpus = [text for task in TASKS for text in instructions.training(task)]
            if self._recipe.data is not None:
                corpus += self._recorded("training").sentences
            tokenizer = Tokenizer.train(corpus, language.vocabulary, language.max_tokens, self._config.lowercase)
            _write(path, tokenizer.to_json())
        self._processes.wait()
        return Tokenizer.from_json(path.read_text())

    def run(self, out: Path) -> None:
        """Makes the checkpoint `out`."""
        recipe = self._recipe
        episodes: list[Episode] = []
        trainer: Trainer | None = None
        for index, part in enumerate(recipe.rounds):
            episodes += self._round_episodes(index, part)
            if trainer is None:
                trainer = self._trainer(episodes)
            self._train(trainer, f"round-{index}", part.phase, episodes)
        assert trainer is not None, "a recipe has at least one round"
        self._train(trainer, "heads", recipe.heads, episodes)
        if self._processes.first:
            # The other processes are done; from here on nobody waits for them.
            self._processes = Processes()
            trainer.average.cpu()
            self._finish(trainer, out)

    def _train(self, trainer: Trainer, name: str, phase: Any, episodes: list[Episode]) -> None:
        settings = self._recipe.optimisation
        rng = np.random.default_rng([self._recipe.seed, trainer.steps_done, self._processes.rank])
        batch = self._processes.share(settings.batch)
        streams = EpisodeStreams(episodes, batch, settings.window, rng, settings.carry_state)
        logger.info("%s: %d episodes, %d steps of data", name, len(episodes), streams.steps)
        trainer.run(phase, ReadAhead(streams), name)
        path = self._policy_of(name)
        if self._processes.first and not path.exists():
            save(path, Checkpoint(trainer.average, self._tokenizer))

    def _policy_of(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _trainer(self, episodes: list[Episode]) -> Trainer:
        """Trains a model whose robot state is normalised by the first round's data."""
        recipe = self._recipe
        robot = encoded_proprioception(torch.from_numpy(np.concatenate([part.proprioception for part in episodes])))
        config = self._config.with_proprioception_statistics(robot.mean(0), robot.std(0).clamp(min=SMALLEST_STD))
        held_out: list[Episode] = []
        if recipe.validation is not None:
            count, seed = recipe.validation.episodes_per_task, recipe.seed * 100 + VALIDATION_SEED
            if recipe.data is None:
                held_out = self._episodes(VALIDATION, count, seed, None, "training")
            else:
                held_out = self._recorded_episodes("validation", count)
        return Trainer(
            self._initial_model(config),
            self._tokenizer,
            recipe.optimisation,
            self._folder,
            recipe.seed,
            self._processes,
            recipe.validation,
            held_out,
            self._save_every_s,
        )

    def _initial_model(self, config: DeerConfig) -> DeerModel:
        """Random weights; the recipe may name others, or have the language layers trained on wordings first.

        The trainer gives those of the first process to all.
        """
        torch.manual_seed(self._recipe.seed)
        model = DeerModel(config)
        if self._start is not None:
            self._take_weights(model, self._start.model)
            self._start = None
        if self._recipe.language is None or not self._processes.first:
            return model
        path = self._policy_of("language")
        if path.exists():
            return load(path, auxiliary_heads=True).model
        wordings = {task: instructions.training(task) for task in TASKS}
        classifier = pretrain_language(model, self._tokenizer, wordings, self._recipe.language, self._recipe.seed)
        for group in instructions.GROUPS:
            shares = classifier.accuracy({task: instructions.validation(task, group) for task in TASKS})
            told = ", ".join(f"{share:.1%}" for share in shares)
            logger.info("language: of the %s validation wordings the exits tell apart %s", group, told)
        save(path, Checkpoint(model, self._tokenizer), auxiliary_heads=True)
        return model

    def _skills(self) -> SkillRecogniser | None:
        recipe = self._recipe
        return None if recipe.skills is None else recogniser(recipe.tasks, recipe.skills, recipe.seed)

    def _take_weights(self, model: DeerModel, start: DeerModel) -> None:
        """Takes over all that the start has; auxiliary heads, which a checkpoint need not hold, begin at random."""
        for part in ("preprocess", "vision", "resampler", "language"):
            ours, theirs = getattr(model.config, part), getattr(start.config, part)
            if ours != theirs:
                raise ConfigError(f"{self._recipe.weights} has {theirs}; the recipe's preset and policy say {ours}")
        try:
            missing, unexpected = model.load_state_dict(start.state_dict(), strict=False)
        except RuntimeError as error:
            raise ConfigError(f"{self._recipe.weights} does not fit the recipe's preset and policy: {error}") from error
        wrong = [*unexpected, *(name for name in missing if not name.startswith("auxiliary_heads."))]
        if wrong:
            raise ConfigError(f"{self._recipe.weights} does not fit the recipe's preset and policy at {wrong[:5]}")

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
        return episodes.load(most_per_task)

    def _round_episodes(self, index: int, part: Round) -> list[Episode]:
        if index == 0 and self._recipe.data is not None:
            return self._recorded_episodes("training")
        policy = None if part.expert_acts else self._policy_of(f"round-{index - 1}")
        return self._episodes(
            f"round-{index}", part.episodes_per_task, self._recipe.seed * 100 + index, policy, "training"
        )

    def _episodes(self, name: str, count: int, seed: int, policy: Path | None, wordings: str) -> list[Episode]:
        recipe = self._recipe
        plans = plan_round(self._folder / "episodes" / name, recipe.scenes, recipe.tasks, count, seed)
        if self._processes.first:
            make_episodes(plans, self._config.preprocess, policy, self._workers, wordings)
        self._processes.wait()
        texts = {task: tuple(getattr(instructions, wordings)(task)) for task in recipe.tasks}
        return [load_episode(plan.path, texts) for plan in plans]

    def _finish(self, trainer: Trainer, out: Path) -> None:
        """Solves thresholds on the final policy's own steps, from starts and wordings that training has not seen."""
        recipe = self._recipe
        plan = CalibrationPlan(
            scenes=recipe.scenes,
            tasks=recipe.tasks,
            episodes=recipe.calibration_episodes_per_task * len(recipe.tasks) * len(recipe.scenes),
            seed=recipe.seed * 100 + CALIBRATION_SEED,
            average_llm_gmac=recipe.average_llm_gmac,
            max_steps=recipe.calibration_max_steps,
        )
        calibration = calibrate_in_simulation(self._policy_of("heads"), plan, self._folder, self._workers)
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
