"""`deer calibrate` and `deer tune`, from the command line to the checkpoint that they write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deer_policies.deer.checkpoint import load, load_policy, save
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.pacing import paced_mean
from deer_policies.deer.thresholds import Calibration
from deer_policies.interfaces import Budget
from deer_ros.cli.main import main

EPISODES, STEPS = 2, 8
TASKS = ["--tasks", "turn_on_led", "open_drawer", "--max-steps", str(STEPS), "--workers", "1"]


@pytest.mark.parametrize(
    "criterion",
    ["action", pytest.param("time", marks=pytest.mark.slow), pytest.param("predicted", marks=pytest.mark.slow)],
)
def test_recalibrates_a_checkpoint(
    criterion: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, full = tmp_path / "new.safetensors", load_policy(tiny_checkpoint).costs.llm_gmac(3, 24)
    arguments = ["calibrate", "--policy", str(tiny_checkpoint), "--criterion", criterion, *TASKS]
    arguments += ["--average-llm-gmac", str(0.6 * full), "--episodes", str(EPISODES), "--out", str(out)]
    assert main([*arguments, "--work", str(tmp_path / "work")]) == 0
    assert "GMAC a step asked for" in capsys.readouterr().out
    old, new = load(tiny_checkpoint), load(out)
    assert all(torch.equal(weight, new.model.state_dict()[name]) for name, weight in old.model.state_dict().items())
    calibration = new.calibration
    assert calibration is not None
    assert calibration.criterion == criterion
    assert calibration.values.shape == (4, EPISODES * STEPS)
    assert calibration.errors is not None
    assert (calibration.errors[:3] > 0).any()
    if criterion == "time":
        assert calibration.values[0].tolist() == [*range(STEPS)] * EPISODES
    source = calibration.source
    assert (source["episodes"], source["check_episodes"], source["wordings"]) == (EPISODES, EPISODES, "validation")
    assert source["requested_llm_gmac"] == pytest.approx(0.6 * full)
    assert source["achieved_llm_gmac"] > 0
    policy = load_policy(out)
    assert policy.budget == Budget(average_llm_gmac=0.6 * full)
    rule = policy.exit_rule
    assert isinstance(rule, ThresholdRule)
    assert rule.pace is not None
    # So few steps leave gaps between the averages that there are: one step at another exit makes that much.
    one_step = full / (EPISODES * STEPS)
    assert paced_mean(calibration, policy.costs, rule.thresholds, rule.pace) <= 0.6 * full + one_step
    # The episodes of each round depend on the thresholds before; a second run finds them all.
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npz")}
    assert len(written) == 3 * EPISODES
    assert main([*arguments, "--work", str(tmp_path / "work")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npz")} == written


def test_a_policy_is_calibrated_on_what_it_was_trained_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    policy, out = tmp_path / "trained.safetensors", tmp_path / "new.safetensors"
    recipe = {"scenes": ["A", "B"], "tasks": ["turn_on_led", "open_drawer"]}
    timed = replace(load(tiny_checkpoint), calibration=Calibration(torch.arange(12.0).repeat(4, 1), "time"))
    save(policy, replace(timed, provenance={"recipe": recipe}))
    arguments = ["calibrate", "--policy", str(policy), "--max-steps", "3", "--workers", "1", "--rounds", "1"]
    assert main([*arguments, "--episodes", "4", "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    calibration = load(out).calibration
    assert calibration is not None
    assert {name: calibration.source[name] for name in recipe} == recipe
    assert calibration.criterion == "time"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--criterion", "taste", "action, feature, time, predicted"),
        ("--rounds", "0", "rounds is 0"),
        ("--average-llm-gmac", "1e-9", "below the cheapest exit"),
    ],
)
def test_what_cannot_be_calibrated(
    option: str,
    value: str,
    message: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new.safetensors"
    arguments = ["calibrate", "--policy", str(tiny_checkpoint), *TASKS, "--episodes", "1", "--out", str(out)]
    assert main([*arguments, "--work", str(tmp_path / "work"), option, value]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_tunes_on_sequences(tiny_checkpoint: Path, tmp_path: Path) -> None:
    full = load_policy(tiny_checkpoint).costs.llm_gmac(3)
    arguments = ["tune", "--policy", str(tiny_checkpoint), "--sequences", "1", "--trials", "1", "--max-steps", "4"]
    arguments += ["--seed", "6", "--workers", "1", "--average-llm-gmac", str(0.6 * full), "--out", str(tmp_path)]
    assert main(arguments) == 0
    (result,) = (json.loads(line) for line in (tmp_path / "trial-000" / "results.jsonl").open())
    assert (result["key"], result["planned"], result["subtasks"][0]["steps"]) == ("sequence/6/0000", 5, 4)


def test_tunes_a_checkpoint(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = load_policy(tiny_checkpoint).costs.llm_gmac(3)
    arguments = ["tune", "--policy", str(tiny_checkpoint), *TASKS, "--starts", "1", "--trials", "2"]
    arguments += ["--average-llm-gmac", str(0.6 * full), "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("objective") == 2
    trials = json.loads((tmp_path / "trials.json").read_text())
    results = [tmp_path / f"trial-{number:03d}" / "results.jsonl" for number in range(2)]
    assert [len(path.read_text().splitlines()) for path in results] == [2, 2]
    tuned = load(tmp_path / "policy.safetensors").calibration
    assert tuned is not None
    assert len(tuned.tuned) == 1
    policy = load_policy(tmp_path / "policy.safetensors")
    assert policy.exit_rule.thresholds == tuned.tuned[0].thresholds
    before = {path: path.read_text() for path in results}
    assert main(arguments) == 0
    assert json.loads((tmp_path / "trials.json").read_text()) == trials
    assert {path: path.read_text() for path in results} == before


@pytest.mark.slow
def test_an_evaluation_of_certified_thresholds_needs_recorded_errors(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "--policy", str(tiny_checkpoint), "--conformal", "0.05", "0.1", "0.1", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "record them with `deer calibrate`" in capsys.readouterr().err
