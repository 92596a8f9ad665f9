"""`deer import` end to end: a release made of recorded weights gives the recorded numbers; errors are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file

from deer_policies.deer.checkpoint import load, load_policy
from deer_policies.deer.exits import ThresholdRule, run_to_exit
from deer_ros.cli.main import main
from tests.policies import release_layouts as layouts

GOLDEN = Path(__file__).resolve().parents[3] / "shared/golden/deer"
RECORDED = sorted(path.parent for path in GOLDEN.glob("*/io.npz"))
TOLERANCE = 1e-5


def close(ours: torch.Tensor, recorded: np.ndarray) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(recorded), rtol=0.0, atol=TOLERANCE)


def as_released(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The recorded model's parameters under the names that a training checkpoint has, without what it leaves out."""
    state = {}
    for name, tensor in weights.items():
        if name.startswith("vision_encoder.") or name.endswith(
            ("transformer.ln_f.weight", "transformer.norm_f.weight")
        ):
            continue
        if ".decoder_layer." in name:
            name = name.replace("transformer.blocks", "old_decoder_blocks").replace(".decoder_layer.", ".")
        if ".gated_cross_attn_layer." in name:
            alias = name.replace("transformer.blocks", "gated_cross_attn_layers")
            state["module." + alias.replace(".gated_cross_attn_layer.", ".")] = tensor
        state["module." + name] = tensor
    return state


@pytest.mark.skipif(not RECORDED, reason=f"recorded numbers are not on this machine ({GOLDEN})")
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda folder: folder.name)
def test_an_imported_release_gives_the_recorded_numbers(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(recorded / "io.npz"))
    size = {key.removeprefix("cfg/"): value.item() for key, value in arrays.items() if key.startswith("cfg/")}
    weights = load_file(recorded / "weights.safetensors")
    values = torch.from_numpy(arrays["solver_values"])
    release = layouts.deer_file(
        tmp_path / "deer.pth", as_released(weights), early_exit_layer=size["early_exit_layer"], values=values
    )
    torch.save(
        {name.removeprefix("vision_encoder."): t for name, t in weights.items() if name.startswith("vision_encoder.")},
        tmp_path / "clip.pt",
    )
    vocabulary = {key.removeprefix("vocab/"): int(arrays[key]) for key in arrays if key.startswith("vocab/")}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    core.save(str(tmp_path / "tokenizer.json"))
    out = tmp_path / "policy.safetensors"
    base = "openflamingo-9b" if "9b" in size["llm_name"] else "openflamingo-3b"
    sources = ["--clip", str(tmp_path / "clip.pt"), "--tokenizer", str(tmp_path)]
    heads = ["--language-heads", str(size["n_heads"]), "--vision-heads", str(size["vis_heads"])]
    assert main(["import", str(release), "--base", base, "--out", str(out), *sources, *heads]) == 0
    assert f"DeeR on {base}, 8 layers of 64, exits after layers 1, 3, 5, 7" in capsys.readouterr().out
    assert torch.equal(load(out).calibration.values, values)

    policy = load_policy(out)
    model = policy.model
    assert [policy.tokenizer.encode(str(arrays["texts"][0]))] == arrays["ids1"].tolist()
    images = torch.stack([torch.from_numpy(arrays["rgb"]), torch.from_numpy(arrays["grip"])], dim=1)
    text = model.text(torch.from_numpy(arrays["ids1"]), torch.from_numpy(arrays["mask1"]).bool())
    state = model.head.initial_state(1)
    rule = ThresholdRule(tuple(arrays["dyn_thresholds"].tolist()))
    taken = []
    with torch.inference_mode():
        close(model.vision(images[:, 0]), arrays["clip_tokens_rgb"])
        media = model.media(images[:1])
        close(media, arrays["vision_x"][0])
        hidden = text.embedding
        for layer in model.layers:
            hidden = layer(hidden, text.bias, media)
        close(hidden, arrays["hidden_b1"][7])
        for step in range(len(images)):
            media = model.media(images[step : step + 1])
            candidates, _ = run_to_exit(model, text, media, None, state, rule, step)
            pose, logit, state = candidates[-1].output
            close(pose[0], arrays["dyn/pose"][step])
            close(logit.sigmoid()[0], arrays["dyn/grip_prob"][step])
            taken.append(model.exit_layers[len(candidates) - 2])
    assert taken == arrays["dyn/exit"].tolist()
    close(state.hidden, arrays["dyn/lstm_h"])


def arguments(tmp_path: Path, release: Path) -> list[str]:
    parts = {
        "--tokenizer": layouts.tokenizer_file(tmp_path / "tokenizer.json"),
        "--clip": layouts.clip_file(tmp_path / "clip.pt"),
        "--out": tmp_path / "policy.safetensors",
    }
    given = [str(word) for pair in parts.items() for word in pair]
    return ["import", str(release), "--base", "openflamingo-3b", "--language-heads", "4", "--vision-heads", "2", *given]


def test_openflamingo_with_its_language_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release, mpt = layouts.openflamingo_file(tmp_path / "checkpoint.pt"), layouts.mpt_folder(tmp_path / "mpt")
    options = ["--mpt", str(mpt), "--layers", "6", "--exit-interval", "3", "--dtype", "bfloat16", "--seed", "3"]
    assert main([*arguments(tmp_path, release), *options]) == 0
    printed = capsys.readouterr().out
    assert "exits after layers 2, 5 (counted from 0)" in printed
    assert "note: action heads hold initial values, drawn with seed 3" in printed
    assert len(load(tmp_path / "policy.safetensors", auxiliary_heads=True).model.auxiliary_heads) == 2
    assert {tensor.dtype for tensor in load_file(tmp_path / "policy.safetensors").values()} == {torch.bfloat16}


def test_auxiliary_heads_are_kept_on_request(tmp_path: Path) -> None:
    release = layouts.deer_file(tmp_path / "deer.pth")
    assert main(arguments(tmp_path, release)) == 0
    assert not any(name.startswith("auxiliary_heads.") for name in load_file(tmp_path / "policy.safetensors"))
    assert main([*arguments(tmp_path, release), "--auxiliary-heads"]) == 0
    assert len(load(tmp_path / "policy.safetensors", auxiliary_heads=True).model.auxiliary_heads) == 2


def test_errors_are_one_line_and_leave_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = layouts.deer_file(tmp_path / "deer.pth", pooling="avg")
    assert main(arguments(tmp_path, release)) == 2
    error = capsys.readouterr().err
    assert error.startswith("deer import: the checkpoint's pooling is 'avg'; supported is 'max'")
    assert error.count("\n") == 1
    assert not (tmp_path / "policy.safetensors").exists()
