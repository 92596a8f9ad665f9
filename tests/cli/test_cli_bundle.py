"""`deer bundle`: scores go into the checkpoint that they were measured with, and into no other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deer_policies.deer.checkpoint import load, save
from deer_ros.cli import bundle
from deer_ros.cli.main import main


@pytest.fixture(scope="module")
def evaluated(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The arguments of an evaluation of the tiny checkpoint, and its folder."""
    folder = tmp_path_factory.mktemp("evaluation")
    arguments = ["eval", "--policy", str(tiny_checkpoint), "--tasks", "turn_on_led", "--starts", "2", "--workers", "1"]
    arguments += ["--max-steps", "3", "--films", "0", "--fixed-exit", "0", "--out", str(folder)]
    assert main(arguments) == 0
    return arguments, folder


def test_a_bundled_checkpoint_carries_its_scores_and_goes_on_with_its_evaluations(
    evaluated: tuple[list[str], Path], tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, folder = evaluated
    out = tmp_path / "bundled.safetensors"
    assert main(["bundle", str(tiny_checkpoint), str(folder), "--out", str(out)]) == 0
    assert "2 starts, seed 1000: 0.000" in capsys.readouterr().out
    before, after = load(tiny_checkpoint), load(out)
    assert after.sha256 == before.sha256
    assert all(
        torch.equal(weight, after.model.state_dict()[name]) for name, weight in before.model.state_dict().items()
    )
    (score,) = after.provenance["scores"]
    report = json.loads((folder / "report.json").read_text())
    assert score["command"] == " ".join(["deer", *arguments])
    assert (score["success"], score["attempts"], score["interval"]) == (0, 2, report["all"]["wilson"])
    for name in ("average_length", "average_length_interval", "llm_share", "total_share", "sequences", "seed"):
        assert score[name] == report[name]
    for name in ("environment", "renderer", "commit"):
        assert score[name] == report[name]
    # Scores are replaced, and the evaluation is one of the bundled file too.
    assert main(["bundle", str(out), str(folder), str(folder), "--out", str(out)]) == 0
    assert len(load(out).provenance["scores"]) == 2
    arguments = [str(out) if argument == str(tiny_checkpoint) else argument for argument in arguments]
    assert main(arguments) == 0


def test_evaluations_of_other_weights_are_refused(
    evaluated: tuple[list[str], Path], tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = evaluated
    other, out = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    checkpoint = load(tiny_checkpoint)
    with torch.no_grad():
        next(checkpoint.model.parameters()).flatten()[0] += 1e-3
    save(other, replace(checkpoint, provenance={}))
    assert main(["bundle", str(other), str(folder), "--out", str(out)]) == 2
    assert "evaluate this very checkpoint" in capsys.readouterr().err
    assert not out.exists()


def test_what_is_not_finished_or_too_large_is_refused(
    evaluated: tuple[list[str], Path],
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, unfinished = tmp_path / "out.safetensors", tmp_path / "unfinished"
    shutil.copytree(evaluated[1], unfinished)
    (unfinished / "report.json").unlink()
    assert main(["bundle", str(tiny_checkpoint), str(unfinished), "--out", str(out)]) == 2
    assert "has no report.json; finish it" in capsys.readouterr().err
    monkeypatch.setattr(bundle, "LARGEST_BYTES", tiny_checkpoint.stat().st_size + 100)
    assert main(["bundle", str(tiny_checkpoint), str(evaluated[1]), "--out", str(out)]) == 2
    assert "what is bundled may take" in capsys.readouterr().err
    assert not out.exists()
