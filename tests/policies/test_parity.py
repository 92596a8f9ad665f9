"""Parity on folders that it has never seen: other layouts and seeds, wrong stages, damaged folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from deer_policies.deer import action_head, attention, backbone, criteria, exits, language, segments, thresholds
from deer_policies.errors import CheckpointError, ConfigError, DeerError
from deer_policies.parity import runs, training
from deer_policies.parity.comparison import Comparison
from deer_policies.parity.recording import Recording
from deer_policies.parity.replay import STAGES, replay
from deer_ros.cli.main import main
from tests.policies.official_formulas import NINE, ODD, SIX_HEADS, Layout
from tests.policies.synthetic_recording import write_arrays, write_recording

FOLDERS = {"9b": (NINE, 0), "9b, another seed": (NINE, 1), "six heads": (SIX_HEADS, 2), "odd sizes": (ODD, 0)}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, tuple[Path, dict[str, np.ndarray]]]:
    root = tmp_path_factory.mktemp("recordings")
    return {name: (root / name, write_recording(root / name, layout, seed)) for name, (layout, seed) in FOLDERS.items()}


@pytest.fixture
def nine(written, tmp_path) -> tuple[Path, dict[str, np.ndarray]]:
    """A copy of the 9B folder to spoil."""
    folder, arrays = written["9b"]
    copied = {name: array.copy() for name, array in arrays.items()}
    return Path(shutil.copytree(folder, tmp_path / "nine")), copied


def held(folder: Path, *stages: str) -> list[bool]:
    """Whether each of these stages holds."""
    recording, results = Recording(folder), []
    with torch.inference_mode():
        for name in stages:
            found = Comparison()
            STAGES[name].replay(recording, found)
            results.append(found.result(name).holds)
    return results


@pytest.mark.parametrize("name", FOLDERS)
def test_every_stage_holds(written, name):
    report = replay(written[name][0])
    assert {result.name for result in report.results if not result.holds} == set()
    assert {result.name for result in report.results if result.recorded} == set(STAGES)
    assert report.not_replayed == ("grad_norm_note",)


@pytest.mark.parametrize(("name", "layout"), [("9b", NINE), ("six heads", SIX_HEADS), ("odd sizes", ODD)])
def test_the_configuration_is_read_from_the_folder(written, name, layout: Layout):
    config = Recording(written[name][0]).config
    assert config.language.exit_layers == tuple(layout.exits)
    assert (config.language.qk_norm, config.head.mlp_dims) == (layout.qk_norm, layout.mlp_dims)
    assert config.language.cross_attention_interval == layout.cross_every
    assert (config.resampler.latents, config.resampler.layers) == (layout.latents, layout.resampler_layers)
    assert config.compatibility == "official"


def test_the_runs_take_different_exits(written):
    for _, arrays in written.values():
        assert len(set(arrays["dyn/exit"].tolist())) > 1


@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("ids3", {"prompt and token ids", "padded batch", "pooled features"}),
        ("clip_tokens_rgb", {"vision tokens", "resampler"}),
        ("perceiver_rgb", {"resampler"}),
        ("hidden_b1", {"hidden states", "pooled features"}),
        ("n_hidden_states", {"hidden states"}),
        ("mask3", {"prompt and token ids"}),
        ("hidden_b3_padded", {"padded batch", "pooled features"}),
        ("exit_ids", {"exit layers"}),
        ("static/3/lstm_c", {"static exits"}),
        ("alternating/pose", {"mixed exits"}),
        ("dyn/exit", {"dynamic exits"}),
        ("dyn/deltas/0", {"dynamic exits"}),
        ("dyn_never/env_action_fp16", {"dynamic exits"}),
        ("dyn_stage2/grip_prob", {"stage reuse"}),
        ("dyn_max4/lstm_h", {"max_layer"}),
        ("layerwise/7/pose", {"auxiliary heads"}),
        ("solver/0/thresholds/1", {"solved thresholds"}),
        ("generate/values", {"criterion values"}),
        ("train_eval_mode/last/0", {"training forward"}),
        ("train_eval_mode/extra_uniform/2", {"training forward"}),
        ("train_losses/bce", {"training losses"}),
    ],
)
def test_a_number_that_is_off_is_noticed_in_its_stage(nine, key, stages):
    folder, arrays = nine
    amounts = {"clip_tokens_rgb": 1.0, "hidden_b1": 10.0, "hidden_b3_padded": 10.0}
    least = 1 if arrays[key].dtype.kind == "i" else 1e-2 if arrays[key].dtype == np.float16 else 1e-4
    arrays[key].reshape(-1)[0] += amounts.get(key, least)
    write_arrays(folder, arrays)
    assert held(folder, *stages) == [False] * len(stages)


def test_a_number_that_is_not_one_does_not_hold(nine):
    folder, arrays = nine
    arrays["hidden_b1"].reshape(-1)[3] = np.nan
    write_arrays(folder, arrays)
    assert held(folder, "hidden states", "vision tokens") == [False, True]


def test_a_shape_that_differs_is_an_error_without_bound():
    found = Comparison()
    found.near("x", torch.zeros(3), torch.zeros(1, 3))
    assert found.result("stage").error == float("inf")


def test_errors_are_relative_above_one():
    found = Comparison()
    found.near("x", torch.tensor([100.0005, 0.5]), torch.tensor([100.0, 0.5]))
    assert found.result("stage").holds
    found.near("y", torch.tensor([0.5005]), torch.tensor([0.5]))
    assert not found.result("stage").holds
    assert found.result("stage").worst == "y"


def no_feed_forward(self, x):
    return torch.zeros_like(x)


def unmixed(head, features, proprioception, exits):
    return thresholds.action_values(head, features, proprioception, torch.zeros_like(exits))


def not_causal(mask, slopes, dtype):
    return torch.zeros(len(mask), len(slopes), mask.shape[1], mask.shape[1])


def ones(self, batch):
    return action_head.HeadState(*[torch.ones(self.config.lstm_layers, batch, self.config.lstm_hidden)] * 2)


def below_only(self, candidates, step):
    """Stops below the threshold; the release also does at it."""
    position = len(candidates) - 2
    distance = float(self.criterion.distance(candidates[-2], candidates[-1], step))
    last = position == len(self.thresholds) - 1
    return exits.Decision(last or distance < self.thresholds[position], distance)


def never_deeper(self, candidates, step):
    return exits.Decision(True, None)


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "stage"),
    [
        (attention.FeedForward, "forward", no_feed_forward, "resampler"),
        (language.F, "gelu", lambda x: F.silu(x), "hidden states"),
        (backbone, "attention_bias", not_causal, "hidden states"),
        (segments, "max_pooled", lambda x, mask, over_padding: x.mean(1), "pooled features"),
        (action_head.ActionHead, "initial_state", ones, "static exits"),
        (exits.ThresholdRule, "decide", never_deeper, "dynamic exits"),
        (training, "action_values", unmixed, "criterion values"),
        (training, "exit_shares", lambda ratio, exits, dist, blind: [1.0 / exits] * exits, "solved thresholds"),
        (training, "action_loss", lambda pose, logit, *_: pose.mean() + logit.mean(), "training losses"),
    ],
)  # fmt: skip
def test_a_mechanism_that_is_wrong_is_noticed(written, monkeypatch, owner, name, wrong, stage):
    folder, _ = written["9b"]
    assert held(folder, stage) == [True]
    monkeypatch.setattr(owner, name, wrong)
    assert held(folder, stage) == [False]


def test_rounding_does_not_decide_at_a_distance_that_equals_its_threshold(written, monkeypatch):
    folder, arrays = written["six heads"]
    limits = arrays["dyn_thresholds"][:-1]
    distances = [arrays[f"dyn/deltas/{step}"] for step in range(len(arrays["dyn/exit"]))]
    assert any((found[: len(limits)] == limits[: len(found)]).any() for found in distances)
    for shift in (1e-6, -1e-6):
        monkeypatch.setattr(
            criteria, "action_distance", lambda a, b, shift=shift: (a - b).square().mean(-1).sqrt() + shift
        )
        assert held(folder, "dynamic exits") == [True]
    monkeypatch.setattr(criteria, "action_distance", lambda a, b: (a - b).square().mean(-1).sqrt() + 1e-3)
    assert held(folder, "dynamic exits") == [False]
    monkeypatch.undo()
    monkeypatch.setattr(exits.ThresholdRule, "decide", below_only)
    assert held(folder, "dynamic exits") == [False]


def test_a_decision_that_the_recorded_distances_do_not_call_for(nine):
    folder, arrays = nine
    step = int(np.argmax(arrays["dyn/exit"] < arrays["exit_ids"][-1]))
    position = len(arrays[f"dyn/deltas/{step}"]) - 1
    arrays["dyn_thresholds"][position] = arrays[f"dyn/deltas/{step}"][-1] - 1e-6
    write_arrays(folder, arrays)
    assert held(folder, "dynamic exits") == [False]


def test_a_draw_of_a_layer_that_has_no_exit(nine):
    folder, arrays = nine
    arrays["generate/rand_layer_indices"][0, 0] = 2
    write_arrays(folder, arrays)
    with pytest.raises(ConfigError, match=r"a run exits at layer 2; cfg/\.\.\. gives exits \(1, 3, 5, 7\)"):
        replay(folder)


def test_a_setting_that_nothing_looks_at_is_told(nine):
    folder, arrays = nine
    write_arrays(folder, {**arrays, "cfg/pooling": np.array("avg"), "another/number": np.zeros(2)})
    assert set(replay(folder).not_replayed) == {"another/number", "cfg/pooling", "grad_norm_note"}


def test_the_norm_before_the_last_auxiliary_head_matters(nine):
    folder, _ = nine
    weights = load_file(folder / "weights.safetensors")
    weights["lang_encoder.transformer.norm_f.weight"] += 0.1
    save_file(weights, folder / "weights.safetensors")
    touched = held(folder, "hidden states", "padded batch", "training forward", "training losses")
    assert touched == [False] * 4
    assert held(folder, "pooled features", "static exits", "auxiliary heads", "criterion values") == [True] * 4


def test_a_file_that_is_missing(nine):
    folder, _ = nine
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"weights\.safetensors does not exist"):
        replay(folder)
    with pytest.raises(ConfigError, match=r"io\.npz does not exist"):
        replay(folder / "nothing")


@pytest.mark.parametrize(("name", "error"), [("io.npz", ConfigError), ("weights.safetensors", CheckpointError)])
def test_a_file_that_is_cut_off(nine, name, error):
    path = nine[0] / name
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(error, match="damaged"):
        replay(nine[0])


def test_a_flipped_byte_is_noticed(nine):
    path = nine[0] / "io.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        replay(nine[0])


@pytest.mark.parametrize("key", ["cfg/n_heads", "vision_x", "dyn/lstm_c", "dyn/deltas/2", "solver/0/ratio"])
def test_an_array_that_is_missing_is_named(nine, key):
    folder, arrays = nine
    np.savez(folder / "io.npz", **{name: value for name, value in arrays.items() if name != key})
    with pytest.raises(ConfigError, match=f"is incomplete: io.npz lacks '{key}', which stats.json lists"):
        replay(folder)
    (folder / "stats.json").unlink()
    with pytest.raises(ConfigError, match=f"is incomplete: io.npz lacks '{key}'"):
        replay(folder)


def test_a_stage_that_is_missing_is_named_unless_it_may_be(nine):
    folder, arrays = nine
    left_out = ("raw_", "dyn_stage", "dyn_never", "generate", "train_losses")
    write_arrays(folder, {name: value for name, value in arrays.items() if not name.startswith(left_out)})
    report = replay(folder)
    assert report.holds
    missing = [result.name for result in report.results if not result.recorded]
    assert missing == ["preprocessing", "stage reuse", "criterion values", "training losses"]
    write_arrays(folder, {name: value for name, value in arrays.items() if not name.startswith("static/")})
    with pytest.raises(ConfigError, match="nothing is recorded of static exits"):
        replay(folder)


def test_an_array_of_another_shape_than_stated(nine):
    folder, arrays = nine
    np.savez(folder / "io.npz", **{**arrays, "vision_x": arrays["vision_x"][..., :-1]})
    with pytest.raises(ConfigError, match=r"'vision_x' has shape \(1, 1, 128, 15\), stats.json says"):
        replay(folder)


def test_settings_of_another_recording(nine):
    folder, arrays = nine
    write_arrays(folder, {**arrays, "cfg/d_model": np.array(64)})
    with pytest.raises(ConfigError, match="cfg/d_model is 64, the weights say 32"):
        replay(folder)
    write_arrays(folder, {**arrays, "cfg/exit_interval": np.array(3)})
    with pytest.raises(DeerError, match=r"gives exits|one parameter"):
        replay(folder)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("perceiver.latents", None, "resampler.latents"),
        ("lang_encoder.transformer.blocks.2.decoder_layer.attn.Wqkv.weight", None, r"layers\.2\.block\.qkv\.weight"),
        ("extra_exit.rnn.layers.3.weight_hh_l0", lambda x: x[:-1], r"head\.lstm\.1\.weight_hh_l0"),
        (
            "lm_head.actions.mlp.0.weight",
            lambda x: torch.ones(2),
            r"head parameter lm_head\.actions\.mlp\.0.*layerwise",
        ),
        ("lang_encoder.transformer.blocks.2.surprise", lambda x: torch.ones(2), "unknown parameter .*surprise"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(nine, name, change, words):
    path = nine[0] / "weights.safetensors"
    weights = load_file(path)
    before = weights.pop(name, None)
    if change is not None:
        weights[name] = change(before).contiguous()
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=words):
        replay(nine[0])


def test_command_passes_a_good_folder_and_names_what_it_left_out(written, capsys):
    assert main(["parity", str(written["9b"][0]), str(written["odd sizes"][0])]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Every stage holds") == 2
    assert "not replayed: grad_norm_note" in printed
    assert printed.count("solved thresholds") == 2


def test_command_fails_for_a_wrong_number_and_goes_on_after_a_bad_folder(written, nine, capsys):
    folder, arrays = nine
    arrays["dyn/pose"][2, 1] += 1e-3
    write_arrays(folder, arrays)
    assert main(["parity", str(folder)]) == 1
    assert "Differs in dynamic exits" in capsys.readouterr().out
    assert main(["parity", str(folder / "nothing"), str(written["9b"][0])]) == 2
    captured = capsys.readouterr()
    assert "does not exist" in captured.err
    assert "Every stage holds" in captured.out


def test_stage_reuse_is_not_what_asking_at_every_step_gives(written, monkeypatch):
    folder, _ = written["9b"]
    rollout = runs._rollout

    def asked_always(recording, found, key, rule_at):
        rollout(recording, found, key, lambda step, taken: rule_at(0, taken))

    monkeypatch.setattr(runs, "_rollout", asked_always)
    assert held(folder, "stage reuse", "dynamic exits", "mixed exits") == [False, True, False]
