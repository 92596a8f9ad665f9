"""The weights that training starts from: those of a checkpoint, or random ones, parts of which are trained first."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import Checkpoint, load, save
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.training.episodes import Episode
from deer_policies.training.focus_readout import FocusReadout
from deer_policies.training.language_pretraining import pretrain_language
from deer_policies.training.readouts import Readouts
from deer_policies.training.recipe import Recipe
from deer_policies.training.scene_readout import SceneReadout
from deer_policies.training.vision_pretraining import pretrain_vision
from deer_sim import instructions
from deer_sim.tasks import TASKS

logger = logging.getLogger(__name__)


def make_readouts(recipe: Recipe, config: DeerConfig, episodes: Sequence[Episode]) -> Readouts:
    """With random weights: those that the recipe asks for.

    Raises:
        ConfigError: if the episodes don't tell what is to be read.
    """
    settings = recipe.optimisation
    torch.manual_seed(recipe.seed)
    scene = focus = None
    if recipe.vision is not None or settings.scene_weight > 0.0:
        scene = SceneReadout(config, _told("scene", episodes))
        told, sought = episodes[0].landmarks.shape[2], config.resampler.landmarks
        if sought not in (0, told):
            raise ConfigError(
                f"the policy looks for {sought} landmarks and the data tell {told}; set resampler.landmarks"
            )
    if settings.focus_weight > 0.0:
        focus = FocusReadout(config, _told("focus", episodes))
    return Readouts(scene, focus)


def _told(name: str, episodes: Sequence[Episode]) -> torch.Tensor:
    values = torch.from_numpy(np.concatenate([getattr(part, name) for part in episodes]))
    if values.shape[1] == 0:
        raise ConfigError(
            f"the recipe has the {name} read, and its data don't tell it; take out vision, scene_weight, focus_weight"
        )
    return values


def starting_model(recipe: Recipe, config: DeerConfig, start: DeerModel | None) -> DeerModel:
    """Random weights, or those of a checkpoint where there is one.

    Raises:
        ConfigError: if the checkpoint does not fit the recipe.
    """
    torch.manual_seed(recipe.seed)
    model = DeerModel(config)
    if start is not None:
        _take_weights(model, start, str(recipe.weights))
    return model


def pretrained(
    model: DeerModel,
    tokenizer: Tokenizer,
    recipe: Recipe,
    folder: Path,
    readouts: Readouts,
    episodes: Sequence[Episode],
    device: torch.device,
) -> DeerModel:
    """The model after the recipe's language and vision phases, whose results are kept in the folder.

    Args:
        model: with its initial weights, which may be changed.
        tokenizer: of the model.
        recipe: names the phases.
        folder: of the run.
        readouts: that of the scene is trained with the vision.
        episodes: of the first round.
        device: where vision is trained.
    """
    model = _with_language(model, tokenizer, recipe, folder / "language.safetensors")
    if recipe.vision is not None:
        assert readouts.scene is not None, "a recipe with a vision phase has it read"
        _train_vision(model.to(device), readouts.scene.to(device), recipe, folder / "vision.pt", episodes)
    return model


def _with_language(model: DeerModel, tokenizer: Tokenizer, recipe: Recipe, path: Path) -> DeerModel:
    if recipe.language is None:
        return model
    if path.exists():
        return load(path, auxiliary_heads=True).model
    wordings = {task: instructions.training(task) for task in TASKS}
    classifier = pretrain_language(model, tokenizer, wordings, recipe.language, recipe.seed)
    for group in instructions.GROUPS:
        shares = classifier.accuracy({task: instructions.validation(task, group) for task in TASKS})
        told = ", ".join(f"{share:.1%}" for share in shares)
        logger.info("language: of the %s validation wordings the exits tell apart %s", group, told)
    save(path, Checkpoint(model, tokenizer), auxiliary_heads=True)
    return model


def _train_vision(
    model: DeerModel, readout: SceneReadout, recipe: Recipe, path: Path, episodes: Sequence[Episode]
) -> None:
    parts = torch.nn.ModuleDict({"vision": model.vision, "resampler": model.resampler, "readout": readout})
    if path.exists():
        parts.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return
    assert recipe.vision is not None, "called for recipes with a vision phase"
    pretrain_vision(model, readout, episodes, recipe.vision, recipe.optimisation, recipe.seed)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(parts.state_dict(), partial)
    os.replace(partial, path)


def _take_weights(model: DeerModel, start: DeerModel, name: str) -> None:
    """Takes over all that the start has; auxiliary heads, which a checkpoint need not hold, begin as the shared one."""
    for part in ("preprocess", "vision", "resampler", "language"):
        ours, theirs = getattr(model.config, part), getattr(start.config, part)
        if ours != theirs:
            raise ConfigError(f"{name} has {theirs}; the recipe's preset and policy say {ours}")
    try:
        missing, unexpected = model.load_state_dict(start.state_dict(), strict=False)
    except RuntimeError as error:
        raise ConfigError(f"{name} does not fit the recipe's preset and policy: {error}") from error
    wrong = [*unexpected, *(name for name in missing if not name.startswith("auxiliary_heads."))]
    if wrong:
        raise ConfigError(f"{name} does not fit the recipe's preset and policy at {wrong[:5]}")
    if missing:
        for head in model.auxiliary_heads:
            head.load_state_dict(model.head.state_dict())
