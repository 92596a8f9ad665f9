"""Import of releases: what becomes of their tensors and settings, and what is not supported is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from deer_policies.deer.checkpoint import load, load_policy, save
from deer_policies.deer.config import changed
from deer_policies.deer.importing import ImportPlan, import_release
from deer_policies.deer.official import name_in_release, official_name
from deer_policies.deer.presets import openflamingo_9b
from deer_policies.deer.release_config import Heads
from deer_policies.deer.stepping import example_observation
from deer_policies.errors import CheckpointError, ConfigError
from tests.policies import release_layouts as layouts

KEYS = Path(__file__).resolve().parents[3] / "shared/golden/deer/openflamingo_3b_layout/ckpt_keys.json"


@pytest.mark.skipif(not KEYS.exists(), reason=f"the recorded key list is not on this machine ({KEYS})")
def test_the_layout_of_these_tests_is_that_of_the_releases():
    saved = json.loads(KEYS.read_text())["saved_patterns"]
    ours = {re.sub(r"\.\d+(?=\.)", ".N", name) for name in layouts.deer_state()}
    assert {name.replace(".0.", ".N.").replace(".1.", ".N.") for name in saved} == ours


@pytest.mark.parametrize("nine", [False, True])
def test_a_deer_release(importing, tmp_path, nine):
    base = "openflamingo-9b" if nine else "openflamingo-3b"
    state, values = layouts.deer_state(nine), torch.rand(2, 30)
    imported = importing(state, {"base": base}, values=values)
    save(tmp_path / "policy.safetensors", imported, auxiliary_heads=True)
    loaded = load(tmp_path / "policy.safetensors", auxiliary_heads=True)
    language, head = loaded.model.config.language, loaded.model.config.head
    assert (language.dim, language.layers, language.exit_layers, language.heads) == (layouts.DIM, 4, (1, 3), 4)
    assert (language.qk_norm, language.cross_attention_interval) == (not nine, 4 if nine else 1)
    assert (loaded.model.config.vision.image_size, loaded.model.config.preprocess.interpolation) == (28, "bicubic")
    assert (head.lstm_hidden, head.mlp_dims) == (layouts.HIDDEN, (1024, 512))
    assert (head.mlp_dropout, head.lstm_dropout) == (0.4, 0.3)
    weights = loaded.model.state_dict()
    up = "ffn.up_proj" if nine else "mlp.mlp_up"
    for ours, theirs in {
        "layers.3.block.up.weight": f"lang_encoder.old_decoder_blocks.3.{up}.weight",
        "layers.3.cross_attention.feed_forward_gate": "lang_encoder.gated_cross_attn_layers.3.ff_gate",
        "head.lstm.2.weight_hh_l0": "extra_exit.rnn.layers.6.weight_hh_l0",
        "head.gripper.9.bias": "extra_exit.gripper.mlp.9.bias",
        "auxiliary_heads.0.norms.1.bias": "lm_exit_modules.0.rnn.layers.4.bias",
        "auxiliary_heads.1.pose.5.weight": "lm_head.actions.mlp.5.weight",
    }.items():
        assert torch.equal(weights[ours], state[f"module.{theirs}"]), ours
    assert torch.equal(loaded.calibration.values, values)
    assert "random shifts" in loaded.calibration.source["origin"]
    assert loaded.provenance["settings"]["precision"] == "amp"
    assert not loaded.untrained


def test_an_imported_policy_runs_and_its_prompt_has_the_ids_of_openflamingo(importing, tmp_path):
    save(tmp_path / "policy.safetensors", importing())
    policy = load_policy(tmp_path / "policy.safetensors")
    assert policy.tokenizer.encode("open the drawer") == [22, 2, 5, 6, 21, 0]
    chunk, _, report = policy.step(example_observation(policy.info), policy.initial_state())
    assert chunk.actions.shape == (1, 7)
    assert report.exit_layer == 3


@pytest.mark.parametrize(
    "place", ["data/gpt/real_step_/sep_res_state_tcp_text_aug.pth", "x_4_step_/mpt_9b_diff_fc.pth"]
)
def test_nothing_is_guessed_from_a_path(importing, parts, tmp_path, place):
    save(tmp_path / "plain.safetensors", importing())
    renamed = tmp_path / place
    renamed.parent.mkdir(parents=True)
    (tmp_path / "deer.pth").rename(renamed)
    plan = ImportPlan(release=str(renamed), base="openflamingo-3b", heads=layouts.OWN_SIZE, **parts)
    save(tmp_path / "renamed.safetensors", import_release(plan))
    files = [safe_open(tmp_path / name, "pt") for name in ("plain.safetensors", "renamed.safetensors")]
    with files[0] as plain, files[1] as same:
        assert plain.metadata() == same.metadata()
        assert plain.keys() == same.keys()
        assert all(torch.equal(plain.get_tensor(key), same.get_tensor(key)) for key in plain.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("head_type", "diffusion", "supported is 'deterministic'"),
        ("head_type", "gpt", "supported is 'deterministic'"),
        ("pooling", "avg", "supported is 'max'"),
        ("dropout_mode", "last", "supported is 'layerwise'"),
        ("dropout_mode", ..., "'wo_last' .absent"),
        ("mlp_layernorm", False, "supported is True"),
        ("lstm_layernorm", ..., "False .absent"),
        ("multi_exit", False, "supported is True"),
        ("share_exit", True, "supported is False"),
        ("early_exit_layer", 5, "6 language model layers, but it holds 4"),
        ("early_exit_layer", "all", "whole number"),
        ("exit_interval", 1, "take 2 or more"),
        ("lstm_dropout", 1.5, r"in \[0, 1\)"),
    ],
)
def test_variants_that_are_not_supported(importing, field, value, words):
    with pytest.raises((CheckpointError, ConfigError), match=rf"{field} is .*{words}"):
        importing(**{field: value})


def test_the_older_name_of_a_setting(importing):
    assert importing(mlp_layernorm=..., layernorm=True).model.config.head.mlp_dims == (1024, 512)
    with pytest.raises(CheckpointError, match="mlp_layernorm is False"):
        importing(layernorm=False)


def test_a_last_layer_that_is_counted_from_the_end(importing):
    assert importing(early_exit_layer=-1).model.config.language.layers == layouts.LAYERS


def test_heads_of_another_shape_than_the_settings_say(importing):
    with pytest.raises(CheckpointError, match=r"lacks tensors .*rnn\.layers\.12\..* and \d+ more"):
        importing(lstm_num_layers=5)
    with pytest.raises(CheckpointError, match=r"unexpected tensors .*rnn\.layers\.9\..* and \d+ more"):
        importing(lstm_num_layers=3)


@pytest.mark.parametrize("nine", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "lang_encoder.transformer.wte.weight",
        "perceiver.latents",
        "perceiver.layers.5.0.to_kv.weight",
        "lang_encoder.old_decoder_blocks.2.attn.Wqkv.weight",
        "lang_encoder.old_decoder_blocks.0.{norm}_1.weight",
        "extra_exit.rnn.layers.0.weight_hh_l0",
        "extra_exit.rnn.layers.10.bias",
        "extra_exit.actions.mlp.1.bias",
        "lm_head.gripper.mlp.9.weight",
        "lm_exit_modules.0.rnn.layers.3.bias_ih_l0",
    ],
)
def test_a_missing_and_a_misshapen_tensor_are_named(importing, name, nine):
    name = name.format(norm="norm" if nine else "ln")
    plan = {"base": "openflamingo-9b" if nine else "openflamingo-3b"}
    state = layouts.deer_state(nine)
    whole = state.pop(f"module.{name}")
    with pytest.raises(CheckpointError, match=f"lacks tensors {re.escape(name)};"):
        importing(state, plan)
    # One row more, where a size is read from this tensor alone; another number of columns otherwise.
    wrong = torch.cat([whole, whole[:1]]) if name == "perceiver.latents" or whole.ndim == 1 else whole[:, 1:]
    with pytest.raises(CheckpointError, match=rf"misshapen tensors {re.escape(name)} \(\d+,.* expected \(\d+,[^)]*\);"):
        importing(state | {f"module.{name}": wrong.clone()}, plan)


def test_missing_tensors_are_counted(importing):
    state = {name: tensor for name, tensor in layouts.deer_state().items() if "lm_head" not in name}
    with pytest.raises(CheckpointError, match=r"lacks tensors (lm_head\.\S+, ){4}lm_head\.\S+ and 39 more"):
        importing(state)


def test_unexpected_tensors_are_named(importing):
    for name in ("perceiver_gripper.latents", "state_fc.weight", "extra_exit.embed_state.weight"):
        with pytest.raises(CheckpointError, match=rf"unexpected tensors {name}; its layout is not supported"):
            importing(layouts.deer_state() | {f"module.{name}": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"unexpected tensors lm_exit_modules\.2\.actions\.mlp\.9\.bias;"):
        importing(layouts.deer_state() | {"module.lm_exit_modules.2.actions.mlp.9.bias": torch.zeros(6)})


def test_one_of_two_names_of_a_parameter_is_enough_but_two_must_agree(importing):
    alias = "module.lang_encoder.gated_cross_attn_layers.1.attn_gate"
    state = layouts.deer_state()
    gate = state.pop(alias)
    assert torch.equal(importing(state).model.layers[1].cross_attention.attention_gate, gate)
    importing(state | {alias: gate.clone()})
    with pytest.raises(CheckpointError, match=r"blocks\.1\.gated_cross_attn_layer\.attn_gate and .* hold different"):
        importing(state | {alias: gate + 1.0})


def test_a_base_that_does_not_fit(importing):
    with pytest.raises(ConfigError, match=r"base openflamingo-3b: its language part has dim 32 \(base: 2048\)"):
        importing(plan={"heads": Heads()})
    with pytest.raises(ConfigError, match=r"its vision part has dim 16 \(base: 1024\).*--vision-heads"):
        importing(plan={"heads": Heads(language=4)})
    with pytest.raises(ConfigError, match="no base 'llama'"):
        importing(plan={"base": "llama"})


def test_attention_heads_come_from_the_base_where_it_fits(importing, monkeypatch):
    sizes = {"language": {"dim": 32, "heads": 8}, "vision": {"dim": 16, "heads": 4, "image_size": 28, "layers": 2}}
    small = changed(openflamingo_9b(), {**sizes, "preprocess": {"image_size": 28}})
    monkeypatch.setattr("deer_policies.deer.importing.preset", lambda _: small)
    nine = layouts.deer_state(nine=True)
    config = importing(nine, {"base": "openflamingo-9b", "heads": Heads()}).model.config
    assert (config.language.heads, config.vision.heads) == (8, 4)
    with pytest.raises(ConfigError, match="which has 8"):
        importing(nine, {"base": "openflamingo-9b", "heads": Heads(language=4)})
    with pytest.raises(ConfigError, match=r"qk_norm True \(base: False\), cross_attention_interval 1 \(base: 4\)"):
        importing(plan={"base": "openflamingo-9b", "heads": Heads()})


@pytest.mark.parametrize("values", [torch.rand(1, 30), torch.full((2, 3), float("nan")), torch.rand(2), [0.1]])
def test_criterion_values_that_are_of_no_use_are_left_out(importing, values):
    imported = importing(values=values)
    assert imported.calibration is None
    assert "were left out" in imported.provenance["notes"][0]


def test_parts_that_are_given_though_the_release_has_them_or_not_given_though_it_lacks_them(importing, parts):
    with pytest.raises(CheckpointError, match="no vision encoder; give it with --clip"):
        importing(plan={"clip": None})
    vision = {f"vision_encoder.{name}": tensor for name, tensor in torch.load(parts["clip"], weights_only=True).items()}
    importing(layouts.deer_state() | vision, {"clip": None})
    with pytest.raises(ConfigError, match="its own vision encoder; leave --clip out"):
        importing(layouts.deer_state() | vision)
    with pytest.raises(ConfigError, match="its own language model; leave --mpt out"):
        importing(plan={"mpt": "mosaicml/mpt-7b"})
    with pytest.raises(ConfigError, match="leave --layers and --exit-interval out"):
        importing(plan={"layers": 2})


def test_a_deer_release_without_the_frozen_layers_takes_them_from_mpt(importing, tmp_path):
    state = {name: tensor for name, tensor in layouts.deer_state().items() if "old_decoder_blocks" not in name}
    with pytest.raises(CheckpointError, match="no language model; give it with --mpt"):
        importing(state)
    mpt = layouts.mpt_folder(tmp_path / "mpt")
    model = importing(state, {"mpt": str(mpt)}).model
    folder = torch.load(mpt / "pytorch_model.bin", weights_only=True)
    assert torch.equal(model.layers[3].block.qkv.weight, folder["transformer.blocks.3.attn.Wqkv.weight"])
    with pytest.raises(CheckpointError, match="early_exit_layer is -1; it must be a whole number of at least 0"):
        importing(state, {"mpt": str(mpt)}, early_exit_layer=-1)


def test_a_tokenizer_that_does_not_fit(importing, tmp_path):
    larger = layouts.tokenizer_file(tmp_path / "large.json", size=layouts.WORDS + 1)
    with pytest.raises(CheckpointError, match="25 ids with OpenFlamingo's, but the release's embedding only 24 rows"):
        importing(plan={"tokenizer": str(larger)})


@pytest.mark.parametrize("nine", [False, True])
def test_openflamingo_needs_its_language_model_and_gets_initial_heads(parts, tmp_path, nine):
    release = layouts.openflamingo_file(tmp_path / "checkpoint.pt", nine)
    mpt = layouts.mpt_folder(tmp_path / "mpt", nine)
    base = "openflamingo-9b" if nine else "openflamingo-3b"
    plan = {"release": str(release), "base": base, "heads": layouts.OWN_SIZE, "layers": 4, **parts}
    with pytest.raises(CheckpointError, match="no language model; give it with --mpt"):
        import_release(ImportPlan(**plan))
    first, same, other = (import_release(ImportPlan(**plan, mpt=str(mpt), seed=seed)) for seed in (5, 5, 6))
    assert first.provenance["notes"] == ["action heads hold initial values, drawn with seed 5"]
    weights = first.model.state_dict()
    block = "transformer.blocks.3.norm_2.weight" if nine else "transformer.blocks.3.ln_2.weight"
    folder = torch.load(mpt / "pytorch_model.bin", weights_only=True)
    assert torch.equal(weights["layers.3.block.norm_2.weight"], folder[block])
    head = "head.pose.1.weight"
    assert torch.equal(weights[head], same.model.state_dict()[head])
    assert not torch.equal(weights[head], other.model.state_dict()[head])
    save(tmp_path / "start.safetensors", first, auxiliary_heads=True)
    assert load(tmp_path / "start.safetensors", auxiliary_heads=True).untrained
    with pytest.raises(CheckpointError, match=r"initial values only .* train it first"):
        load_policy(tmp_path / "start.safetensors")


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_weights_are_stored_as_asked_and_read_as_float32(importing, tmp_path, name):
    imported, path, dtype = importing(values=torch.rand(2, 30)), tmp_path / "half.safetensors", getattr(torch, name)
    save(path, imported, dtype=dtype)
    stored = load_file(path)
    assert {tensor.dtype for key, tensor in stored.items() if key != "calibration.values"} == {dtype}
    loaded = load(path)
    latents = imported.model.resampler.latents
    assert torch.equal(loaded.model.resampler.latents, latents.to(dtype).float())
    assert torch.equal(loaded.calibration.values, imported.calibration.values)


def test_weights_beyond_the_range_of_float16(importing, tmp_path):
    state = layouts.deer_state()
    state["module.perceiver.latents"] = state["module.perceiver.latents"] * 1e7
    with pytest.raises(CheckpointError, match=r"resampler\.latents has weights beyond the range of float16"):
        save(tmp_path / "half.safetensors", importing(state), dtype=torch.float16)
    assert not (tmp_path / "half.safetensors").exists()


def test_names_lead_back_to_those_of_the_release(importing):
    model = importing().model
    for name in model.state_dict():
        assert official_name(name_in_release(name, model.config), layouts.EXITS) == name


def test_provenance_tells_the_files_by_content(importing, tmp_path):
    save(tmp_path / "policy.safetensors", importing())
    with safe_open(tmp_path / "policy.safetensors", "pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert set(provenance["files"]) == {"release", "clip", "tokenizer"}
    assert provenance["files"]["release"][0]["bytes"] == (tmp_path / "deer.pth").stat().st_size
    assert str(tmp_path) not in json.dumps(provenance)
