"""`deer train` from end to end on a tiny policy and demonstrations made up beforehand; only calibration simulates."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import load
from deer_policies.training.episodes import Episode, save_episode
from deer_policies.training.read_ahead import ReadAhead
from deer_policies.training.scene_readout import SceneReadout
from deer_policies.training.trainer import Trainer
from deer_ros.cli import training_start
from deer_ros.cli.main import main
from deer_ros.cli.training_data import plan_round

LIMIT_S = 1800.0
"""For each run; they take seconds, but this must not fail on a busy machine."""
TASKS = ("open_drawer", "turn_on_led")
RECIPE = {
    "name": "tiny",
    "seed": 3,
    "preset": "deer-nano",
    "scenes": ["D"],
    "tasks": list(TASKS),
    "policy": {
        "preprocess": {"image_size": 32},
        "vision": {"image_size": 32, "stem_channels": [8, 8, 8, 16], "dim": 16, "heads": 2},
        "resampler": {"latents": 2, "layers": 1, "heads": 2, "head_dim": 8, "landmarks": 2},
        "language": {"dim": 16, "heads": 2, "layers": 4, "cross_attention_heads": 2, "cross_attention_head_dim": 8},
        "head": {"lstm_hidden": 16, "mlp_dims": [16], "mlp_dropout": 0.2},
    },
    "language": {"steps": 2},
    "vision": {"steps": 2, "batch": 4},
    "rounds": [{"episodes_per_task": 2, "expert_acts": True, "phase": {"steps": 55, "learning_rate": 1.0e-3}}],
    "heads": {"steps": 5, "learning_rate": 1.0e-3},
    "optimisation": {"batch": 4, "window": 5, "scene_weight": 0.1, "focus_weight": 0.1, "shift_px": [0, 0]},
    "validation": {"episodes_per_task": 1, "every": 20, "patience": 9},
    "calibration_episodes_per_task": 1,
    "calibration_max_steps": 3,
}


def prepared(folder: Path, data_seed: int = 0, **changes: Any) -> list[str]:
    """Writes recipe and episodes; returns the command's arguments."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **changes}))
    rng = np.random.default_rng(data_seed)
    emphasis = changes.get("rounds", RECIPE["rounds"])[0].get("emphasis")
    for name, count, more in (("round-0", 2, emphasis), ("validation", 1, None)):
        for plan in plan_round(folder / "work/tiny/episodes" / name, ("D",), TASKS, count, 0, more):
            steps = int(rng.integers(8, 14))
            episode = Episode(
                images=rng.integers(0, 256, (steps, 2, 3, 32, 32), dtype=np.uint8),
                proprioception=rng.normal(size=(steps, 15)).astype(np.float32),
                labels=rng.uniform(-1.0, 1.0, (steps, 3, 7)).astype(np.float32),
                task=plan.task,
                instructions=("words",),
                known=rng.random((steps, 3)) < 0.9,
                scene=rng.normal(size=(steps, 4)).astype(np.float32),
                landmarks=rng.random((steps, 2, 2, 3)).astype(np.float32),
                focus=rng.normal(size=(steps, 2)).astype(np.float32),
            )
            save_episode(plan.path, episode)
    places = ["--out", str(folder / "out.safetensors"), "--work", str(folder / "work")]
    return ["train", str(folder / "recipe.yaml"), *places, "--threads", "1", "--device", "cpu", "--save-every-s", "0"]


def command(arguments: list[str], processes: int = 1) -> list[str]:
    parallel = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *(parallel if processes > 1 else []), "-m", "deer_ros.cli.main", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def saved_step(folder: Path) -> int:
    path = folder / "work/tiny/trainer.pt"
    return torch.load(path, weights_only=True)["steps_done"] if path.exists() else 0


def running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def interrupt(arguments: list[str], folder: Path, number: signal.Signals, processes: int = 1) -> None:
    """Runs the command until some updates are saved, sends the signal, and waits until all that it started is gone."""
    process = subprocess.Popen(command(arguments, processes), env=environment(), stderr=subprocess.DEVNULL)
    children: list[int] = []
    try:
        limit = time.monotonic() + LIMIT_S
        while saved_step(folder) < 5 and time.monotonic() < limit:
            assert process.poll() is None, "the run ended before it could be stopped"
            time.sleep(0.01)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children = [int(pid) for pid in listed.split()]
        process.send_signal(number)
        limit = time.monotonic() + LIMIT_S
        while (process.poll() is None or any(map(running, children))) and time.monotonic() < limit:
            time.sleep(0.05)
        assert process.poll() is not None
        assert not any(map(running, children))
    finally:
        process.kill()
        process.wait()
        for pid in filter(running, children):
            os.kill(pid, signal.SIGKILL)
    assert 5 <= saved_step(folder) < 55


def losses(folder: Path) -> list[object]:
    lines = [yaml.safe_load(line) for line in (folder / "work/tiny/log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time_s", "updates_per_s")} for line in lines]


def assert_same_run(first: Path, second: Path) -> None:
    assert losses(first) == losses(second)
    ours, theirs = (load_file(folder / "out.safetensors") for folder in (first, second))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("train") / "whole"
    subprocess.run(command(prepared(folder)), env=environment(), check=True, timeout=LIMIT_S)
    return folder


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    arguments = prepared(folder)
    interrupt(arguments, folder, signal.SIGKILL)
    subprocess.run(command(arguments), env=environment(), check=True, timeout=LIMIT_S)
    assert_same_run(whole, folder)


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("train") / "whole"
    subprocess.run(command(prepared(folder), 2), env=environment(), check=True, timeout=LIMIT_S)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_torchrun_leaves_nothing_behind_and_goes_on_bit_for_bit(
    whole_of_two: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "stopped"
    arguments = prepared(folder)
    interrupt(arguments, folder, number, processes=2)
    subprocess.run(command(arguments, 2), env=environment(), check=True, timeout=LIMIT_S)
    assert_same_run(whole_of_two, folder)


def test_training_starts_from_given_weights(whole: Path, tmp_path: Path) -> None:
    start = whole / "out.safetensors"
    arguments = prepared(
        tmp_path / "more",
        language=None,
        vision=None,
        weights=str(start),
        data_seed=5,
        rounds=[{"episodes_per_task": 2, "expert_acts": True, "phase": {"steps": 1, "learning_rate": 1.0e-9}}],
        heads={"steps": 1, "learning_rate": 1.0e-9},
        optimisation={"batch": 4, "window": 5, "ema_decay": 0.0},
    )
    assert main(arguments) == 0
    before, after = load_file(start), load_file(tmp_path / "more/out.safetensors")
    weights = [name for name in before if not name.startswith("calibration.")]
    assert len(weights) > 50
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in weights)
    # What the head has learned from is the robot state as it was normalised then.
    heads = [load(path).model.config.head for path in (start, tmp_path / "more/out.safetensors")]
    assert heads[0] == heads[1]


def test_a_folder_of_another_recipe_is_refused(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = prepared(tmp_path / "changed", seed=4, heads={"steps": 6, "learning_rate": 1.0e-3})
    arguments[arguments.index("--work") + 1] = str(whole / "work")
    assert main(arguments) == 2
    assert "holds a run with other heads, seed;" in capsys.readouterr().err
    assert not (tmp_path / "changed/out.safetensors").exists()


def test_weights_that_do_not_fit_the_recipe_are_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {**RECIPE["policy"], "resampler": {**RECIPE["policy"]["resampler"], "latents": 3}}  # type: ignore[dict-item]
    start = str(whole / "out.safetensors")
    arguments = prepared(tmp_path / "other", language=None, vision=None, weights=start, policy=changed)
    assert main(arguments) == 2
    assert "the recipe's preset and policy say ResamplerConfig(latents=3" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scene", "focus"])
def test_what_the_data_do_not_tell_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments = prepared(tmp_path / "blind", language=None)
    for path in (tmp_path / "blind").rglob("*.npz"):
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, name: arrays[name][:, :0]})
    assert main(arguments) == 2
    assert f"the recipe has the {name} read, and its data don't tell it" in capsys.readouterr().err


def test_an_emphasis_holds_for_the_episodes_and_for_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def stopped(trainer: Trainer, phase: object, streams: ReadAhead, *others: object) -> None:
        drawn.extend(episode.task for episode in streams._streams._episodes)
        drawn.extend(streams._streams._shares)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", stopped)
    rounds = [{**RECIPE["rounds"][0], "emphasis": {"turn_on_led": 3}}]  # type: ignore[dict-item]
    with contextlib.suppress(KeyboardInterrupt):
        main(prepared(tmp_path / "run", rounds=rounds, language=None, vision=None))
    assert [drawn.count(task) for task in TASKS] == [2 + 1, 6 + 3]


def test_vision_is_trained_once_and_its_readout_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped in the first round goes on with the vision and the readout that the phase has left."""
    phases: list[tuple[torch.nn.Module, torch.nn.Module]] = []
    starts: list[tuple[torch.nn.Module, torch.nn.Module]] = []
    original = training_start.pretrain_vision

    def counted(model: DeerModel, readout: SceneReadout, *others: object) -> None:
        original(model, readout, *others)
        phases.append((copy.deepcopy(model), copy.deepcopy(readout)))

    def stopped(trainer: Trainer, *others: object) -> None:
        starts.append((trainer.model, trainer._readouts.scene))
        raise KeyboardInterrupt

    monkeypatch.setattr(training_start, "pretrain_vision", counted)
    monkeypatch.setattr(Trainer, "run", stopped)
    arguments = prepared(tmp_path / "run")
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            main(arguments)
    assert (len(phases), len(starts)) == (1, 2)
    for start in starts:
        for ours, theirs in zip(start, phases[0], strict=True):
            assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
