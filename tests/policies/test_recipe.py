"""Recipes: what may stand in them, and how one is based on another."""

from dataclasses import replace
from pathlib import Path

import pytest

from deer_policies.errors import ConfigError
from deer_policies.training.recipe import Optimisation, PretrainingPhase, load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PHASE = "expert_acts: true, episodes_per_task: 1, phase: {steps: 1, learning_rate: 1.0}"


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_committed_recipes_can_be_read(path):
    recipe = load_recipe(path)
    assert recipe.rounds[0].expert_acts
    assert recipe.heads.heads_only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour: red", "unknown settings"),
        ("rounds: []", "a recipe needs rounds"),
        ("scenes: []", "needs scenes"),
        ("optimisation: {samplings: [often]}", "'often'; allowed are uniform, segments"),
        ("optimisation: {samplings: []}", "'uniform' and 'segments'"),
        ("optimisation: {exit_shares: [1.0, 0.0]}", "each exit needs a share above 0"),
        ("optimisation: {distillation_weight: -1.0}", "at least 0"),
        ("optimisation: {distillation_weight: 1.0, auxiliary_weight: 0.0}", "needs the other above 0"),
        ("heads: {steps: 0, learning_rate: 1.0}", "steps >= 1"),
        ("heads: {steps: 1, learning_rate: 1.0, schedule: stairs}", "'stairs'; allowed are cosine, constant"),
        ("optimisation: {batch: 0}", "batch, window >= 1"),
        ("optimisation: {clip_norm: 0.0}", "clip_norm > 0"),
        ("optimisation: {weight_decay: -1.0}", "weight_decay >= 0"),
        ("calibration_max_steps: 0", "both must be at least 1"),
        ("calibration_episodes_per_task: 0", "both must be at least 1"),
        ("optimisation: {frozen: [arm]}", "'arm'; allowed are vision, resampler"),
        ("optimisation: {decayed: gates}", "'gates'; allowed are all, cross_attention"),
        ("optimisation: {precision: int8}", "'int8'; allowed are bfloat16, float32"),
        ("validation: {episodes_per_task: 1, every: 10, patience: 0}", "at least 1"),
        ("weights: other.safetensors", "both weights and a language phase"),
        ("vision: {steps: 5, kind: fast}", r"vision has unknown settings \['kind'\]"),
        ("vision: {steps: 5}", "shift_px"),
        ("optimisation: {scene_weight: 0.1}", "shift_px"),
        ("optimisation: {focus_weight: 0.1}", "shift_px"),
        ("validation: {often: true}", r"validation has unknown settings \['often'\]"),
        (f"rounds: [{{{PHASE}, emphasis: {{open_drawer: 0}}}}]", "whole number of at least 1"),
        (f"tasks: [open_drawer]\nrounds: [{{{PHASE}, emphasis: {{shut_drawer: 2}}}}]", "names \\['shut_drawer'\\]"),
        ("rounds: [{phase: {stepz: 3}}]", r"rounds\[0\]\.phase has unknown settings \['stepz'\]"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path, change, message):
    text = (RECIPES / "smoke.yaml").read_text()
    keys = tuple(f"{line.split(':')[0]}:" for line in change.splitlines())
    kept, skipping = [], False
    for line in text.splitlines():
        skipping = line.startswith(keys) or (skipping and line.startswith(" "))
        if not skipping:
            kept.append(line)
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*kept, change]))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_a_recipe_changes_single_settings_of_its_base(tmp_path):
    smoke = load_recipe(RECIPES / "smoke.yaml")
    (tmp_path / "base.yaml").write_text((RECIPES / "smoke.yaml").read_text())
    (tmp_path / "middle.yaml").write_text("base: base.yaml\nname: middle\nscenes: [B]\noptimisation: {window: 3}\n")
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "own.yaml"
    path.write_text("base: ../middle.yaml\nname: own\noptimisation: {auxiliary_weight: 0.0}\n")
    optimisation = replace(smoke.optimisation, window=3, auxiliary_weight=0.0)
    assert load_recipe(path) == replace(smoke, name="own", scenes=("B",), optimisation=optimisation)


def test_ablations_differ_from_their_base_in_what_they_are_named_after():
    bundled = load_recipe(RECIPES / "deer-nano-start.yaml")
    base = load_recipe(RECIPES / "deer-nano-short.yaml")
    assert (base.optimisation, base.heads) == (bundled.optimisation, bundled.heads)
    changes = {
        "no-auxiliary": {"auxiliary_weight": 0.0},
        "uniform": {"samplings": ("uniform",)},
        "segments": {"samplings": ("segments",)},
    }
    for name, change in changes.items():
        optimisation = replace(base.optimisation, **change)
        expected = replace(base, name=f"deer-nano-short-{name}", optimisation=optimisation)
        assert load_recipe(RECIPES / "ablations" / f"{name}.yaml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: other.yaml", r"own\.yaml has no name"),
        ("{base: other.yaml, name: own}", "its own base"),
        ("{base: nowhere.yaml, name: own}", r"cannot read the recipe .*nowhere\.yaml"),
    ],
)
def test_a_base_that_can_not_be_used_is_told(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("{base: own.yaml, name: other}")
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "own.yaml")


def test_weights_and_a_vision_phase_exclude_each_other():
    recipe = load_recipe(RECIPES / "deer-nano-start.yaml")
    with pytest.raises(ConfigError, match="both weights and a vision phase"):
        replace(recipe, language=None, weights="other.safetensors")
    assert recipe.tasks == ()
    assert isinstance(recipe.vision, PretrainingPhase)


def test_optimisation_refuses_an_impossible_average():
    with pytest.raises(ConfigError, match="ema_decay"):
        replace(Optimisation(), ema_decay=1.0)
