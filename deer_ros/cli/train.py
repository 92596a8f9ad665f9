"""`deer train`: makes a checkpoint from a recipe: demonstrations, training, corrections, thresholds, provenance."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

HELP = "train a policy from a recipe (recipes/*.yaml); interrupted runs go on where they stopped"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("recipe", type=Path, help="YAML file, see recipes/")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write (.safetensors)")
    parser.add_argument("--work", type=Path, default=Path(".cache/train"), help="folder for data and training state")
    parser.add_argument("--workers", type=int, default=2, help="processes that make data")
    parser.add_argument("--threads", type=int, default=2, help="torch threads of each training process")
    parser.add_argument(
        "--save-every-s", type=float, default=120.0, help="seconds between savings of the training state"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to train; auto is a GPU if there is one",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs all rounds of the recipe, as one of the processes if `torchrun` has started several."""
    import torch

    from deer_policies.training.parallel import best_device, joined
    from deer_policies.training.recipe import load_recipe
    from deer_ros.cli.training_run import TrainingRun

    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.recipe)
    with joined(best_device() if arguments.device == "auto" else arguments.device) as processes:
        if not processes.first:
            logging.disable(logging.INFO)
        folder = arguments.work / recipe.name
        TrainingRun(recipe, folder, arguments.workers, processes, arguments.save_every_s).run(arguments.out)
    return 0
