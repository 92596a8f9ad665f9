"""`deer teach`: gives a checkpoint a recogniser of its skills, trained anew; else only its provenance changes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deer_sim.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deer_policies.deer.skills import SkillRecogniser
    from deer_policies.training.recipe import SkillsPhase

HELP = "add a recogniser of skills to a checkpoint, so that it refuses instructions that are none of them"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("policy", help="name of a bundled policy, or path of a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write (.safetensors)")
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="its skills; by default the tasks of the recipe that it names"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps; the default of a recipe if absent")
    parser.add_argument("--seed", type=int, default=1, help="of initial weights and draws")


def run(arguments: argparse.Namespace) -> int:
    """Trains the recogniser and writes the checkpoint."""
    from dataclasses import asdict, replace

    from deer_policies.deer.checkpoint import load, save
    from deer_policies.errors import ConfigError
    from deer_policies.training.recipe import SkillsPhase
    from deer_ros.cli.provenance import commit

    checkpoint = load(arguments.policy)
    tasks = arguments.tasks or checkpoint.provenance.get("recipe", {}).get("tasks")
    if not tasks or not set(tasks) <= set(TASKS):
        raise ConfigError(f"the skills of the policy are {tasks}; name them with --tasks, out of {', '.join(TASKS)}")
    phase = SkillsPhase() if arguments.steps is None else SkillsPhase(steps=arguments.steps)
    taught = {"recogniser": {**asdict(phase), "seed": arguments.seed, "commit": commit()}}
    skills, provenance = recogniser(tasks, phase, arguments.seed), {**checkpoint.provenance, **taught}
    save(arguments.out, replace(checkpoint, skills=skills, provenance=provenance))
    print(f"wrote {arguments.out}")
    return 0


def recogniser(learned: Sequence[str], phase: SkillsPhase, seed: int) -> SkillRecogniser:
    """Trained on the wordings of all tasks, so that those that were not learned are recognised by name."""
    from deer_policies.training.skills import OutsideTexts, train_skills
    from deer_sim import instructions, outside

    texts = OutsideTexts(outside.training(), outside.tuning())
    wordings = {task: (*instructions.training(task), *instructions.bare(task)) for task in TASKS}
    examples = {task: instructions.example(task) for task in TASKS}
    return train_skills(wordings, texts, learned, phase, seed, examples)
