"""A policy with random weights whose provenance tells all, and a `deer` that draws what it would find."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

RECIPE = {"name": "fake", "tasks": ["turn_on_led"], "optimisation": {"auxiliary_weight": 1.0, "window": 8}}


@pytest.fixture(scope="session")
def make_checkpoint():
    """Writes a checkpoint of a nano policy, trained with these samplings and this weight of auxiliary heads."""
    import torch

    from deer_policies.deer.backbone import DeerModel
    from deer_policies.deer.checkpoint import Checkpoint, save
    from deer_policies.deer.presets import deer_nano
    from deer_policies.deer.thresholds import Calibration
    from deer_policies.deer.tokenizer import Tokenizer
    from deer_policies.interfaces import Budget

    torch.set_num_threads(1)
    config = deer_nano()
    torch.manual_seed(0)
    model = DeerModel(config)
    tokenizer = Tokenizer.train(["open the drawer", "switch on the light"], config.language.vocabulary, 32)
    episodes = torch.arange(1200) // 20
    errors = torch.rand(4, 1200).sort(dim=0, descending=True).values * 0.1
    errors[-1] = 0.0
    source = {"scenes": ["D"], "tasks": ["turn_on_led"], "episodes": 60, "seed": 901}
    calibration = Calibration(torch.rand(4, 1200) * 0.1, "action", source, errors=errors, episodes=episodes)

    def make(path, samplings=("uniform", "segments"), auxiliary_weight=1.0, **recipe):
        settings = {**RECIPE["optimisation"], "samplings": list(samplings), "auxiliary_weight": auxiliary_weight}
        provenance = {"recipe": {**RECIPE, "optimisation": settings, **recipe}}
        save(path, Checkpoint(model, tokenizer, calibration, Budget(average_llm_gmac=0.016), provenance))
        return path

    return make


class FakeDeer:
    """Runs `deer eval` and `deer tune` without a simulator; outcomes are drawn from the command. Notes what it ran."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    def __call__(self, arguments) -> None:
        from deer_policies.deer.checkpoint import acting_sha256
        from deer_ros.cli.eval import planned
        from deer_ros.cli.main import parsed
        from deer_sim.results import ChainResult, SubtaskResult, open_store
        from deer_sim.scores import summarise

        self.ran.append(list(arguments))
        command = parsed(arguments)
        command.out.mkdir(parents=True, exist_ok=True)
        if arguments[0] == "tune":
            shutil.copy(command.policy, command.out / "policy.safetensors")
            trials = [{"number": 1, "score": {"success": 0.75, "llm_gmac": 0.0099}}]
            (command.out / "trials.json").write_text(json.dumps(trials))
            return
        seed = int(hashlib.sha256(command.out.name.encode()).hexdigest()[:8], 16)
        results = []
        for number, chain in enumerate(planned(command)):
            rng = np.random.default_rng([seed, number])
            solved = int(rng.integers(0, len(chain.subtasks) + 1))
            subtasks = tuple(
                SubtaskResult(task.task, task.instruction, index < solved, 10, {"1": 10}, 4.0, 0.01, 0.02, 0.05, 0.06)
                for index, task in enumerate(chain.subtasks[: solved + 1])
            )
            results.append(ChainResult(chain.key, len(chain.subtasks), subtasks))
        with open_store(command.out) as (_, store):
            for result in results:
                store.add(result)
        report = {
            **summarise(results),
            "command": command.command_line,
            "weights_sha256": acting_sha256(Path(command.policy)),
            "commit": "c0ffee",
            "mode": "sequences",
        }
        (command.out / "report.json").write_text(json.dumps({**report, "settings": asdict(results[0])}))


@pytest.fixture
def fake_deer():
    return FakeDeer()
