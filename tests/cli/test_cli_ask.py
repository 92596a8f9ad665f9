"""The commands `deer teach`, which gives a checkpoint a recogniser of skills, and `deer ask`, which asks it."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from deer_policies.deer.checkpoint import load, save
from deer_policies.training.recipe import SkillsPhase
from deer_policies.training.skills import OutsideTexts, train_skills
from deer_ros.cli.main import main
from deer_sim import instructions, outside

POLITE = ("", "please ", "now ", "could you ", "robot ", "kindly ")


@pytest.fixture
def few_texts(monkeypatch):
    """A tenth of the texts; what a recogniser learns from all of them is measured by benchmarks/language.py."""
    monkeypatch.setattr(instructions, "training", instructions.plain_training)
    texts = outside.tuning()
    monkeypatch.setattr(outside, "training", lambda: texts)


def test_teaching_changes_nothing_else(tiny_checkpoint, tmp_path, few_texts):
    path = tmp_path / "taught.safetensors"
    tasks = ["open_drawer", "turn_on_led"]
    assert main(["teach", str(tiny_checkpoint), "--tasks", *tasks, "--steps", "2", "--out", str(path)]) == 0
    before, after = load(tiny_checkpoint), load(path)
    assert before.skills is None
    assert after.skills.skills.learned == ("open_drawer", "turn_on_led")
    assert len(after.skills.skills.tasks) == 34
    weights = after.model.state_dict()
    assert all(tensor.equal(weights[name]) for name, tensor in before.model.state_dict().items())
    assert after.calibration.values.equal(before.calibration.values)
    assert after.sha256 == before.sha256
    taught = after.provenance.pop("recogniser")
    assert (taught["steps"], taught["seed"], after.provenance) == (2, 1, before.provenance)
    assert path.stat().st_size - tiny_checkpoint.stat().st_size < 1_000_000


def test_what_is_understood_and_what_is_not(tiny_checkpoint, tmp_path, capsys):
    wordings = {f"{verb}_drawer": [f"{polite}{verb} the drawer" for polite in POLITE] for verb in ("open", "close")}
    texts = [
        f"{polite}{verb} the {thing}" for polite in POLITE for verb in ("open", "paint") for thing in ("jar", "tin")
    ]
    recogniser = train_skills(wordings, OutsideTexts(texts, texts), ["open_drawer"], SkillsPhase(80, batch=16), 1)
    path = tmp_path / "taught.safetensors"
    save(path, replace(load(tiny_checkpoint), skills=recogniser))
    ask = ["ask", "--policy", str(path)]
    assert main([*ask, "please", "open", "the", "drawer"]) == 0
    assert capsys.readouterr().out.startswith("open_drawer (score ")
    assert main([*ask, "paint the tin"]) == 1
    told = capsys.readouterr().out
    assert "'paint the tin' is not understood" in told
    assert "'open the drawer'" in told
    assert main([*ask, "close the drawer"]) == 1
    assert "the nearest task is close_drawer" in capsys.readouterr().out


def test_a_policy_that_can_not_tell_says_so(tiny_checkpoint, capsys):
    assert main(["ask", "--policy", str(tiny_checkpoint), "open the drawer"]) == 2
    assert "deer teach" in capsys.readouterr().err
    assert main(["teach", str(tiny_checkpoint), "--out", "unused.safetensors"]) == 2
    assert "name them with --tasks" in capsys.readouterr().err
