"""Every stage of the policy against numbers recorded from the official DeeR code (tiny random weights, float32)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.exits import ThresholdRule, run_to_exit
from deer_policies.deer.official import from_official, official_name
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.presets import openflamingo_3b
from deer_policies.deer.thresholds import action_values, exit_shares, solve_thresholds
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError
from deer_policies.training.exit_sampling import gather_exits
from deer_policies.training.objective import Batch
from deer_policies.training.optimiser import make_optimiser
from deer_policies.training.recipe import Optimisation, Phase
from deer_policies.training.trainer import Trainer

GOLDEN = Path(__file__).resolve().parents[3] / "shared/golden/deer"
LAYOUTS = sorted(path.name for path in GOLDEN.glob("*") if (path / "io.npz").exists()) if GOLDEN.exists() else []
TOLERANCE = 1e-5

pytestmark = pytest.mark.skipif(not LAYOUTS, reason=f"recorded numbers are not on this machine ({GOLDEN})")


class Golden:
    """One recorded layout: its arrays, and our model with its weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays = dict(np.load(folder / "io.npz"))
        self.config = self._config()
        self.model = DeerModel(self.config).eval()
        self.weights = load_file(folder / "weights.safetensors")
        self.model.load_state_dict(from_official(self.weights, self.config))

    def _config(self) -> DeerConfig:
        size = {key.removeprefix("cfg/"): value.item() for key, value in self.arrays.items() if key.startswith("cfg/")}
        nine = "9b" in size["llm_name"]
        return changed(
            openflamingo_3b(),
            {
                "name": self.folder.name,
                "preprocess": {"image_size": size["img"]},
                "vision": {
                    "image_size": size["img"],
                    "patch_size": size["patch"],
                    "dim": size["vis_width"],
                    "layers": size["vis_layers"],
                    "heads": size["vis_heads"],
                },
                "language": {
                    "vocabulary": len([key for key in self.arrays if key.startswith("vocab/")]),
                    "dim": size["d_model"],
                    "heads": size["n_heads"],
                    "layers": size["early_exit_layer"] + 1,
                    "qk_norm": not nine,
                    "exit_interval": size["exit_interval"],
                    "cross_attention_interval": size["cross_attn_every"],
                },
                "head": {"lstm_hidden": size["head_hidden"], "lstm_layers": size["lstm_layers"]},
            },
        )

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def images(self) -> torch.Tensor:
        """(steps, views, 3, height, width), as the official preprocessing made them."""
        return torch.stack([self.tensor("rgb"), self.tensor("grip")], dim=1)

    def text(self, which: str = "1"):
        return self.model.text(self.tensor(f"ids{which}"), self.tensor(f"mask{which}").bool())

    def hidden_states(self, which: str, media: torch.Tensor) -> torch.Tensor:
        text = self.text(which)
        x, states = text.embedding, []
        for layer in range(len(self.model.layers)):
            x = self.model.run_layers(x, text, media, layer, layer)
            states.append(x)
        return torch.stack(states)

    def rollout(self, rules: list[ThresholdRule], key: str) -> list[list[float]]:
        """Runs the recorded steps, checks every output against the recording, and returns the distances."""
        text, state, all_distances = self.text(), self.model.head.initial_state(1), []
        for step, rule in enumerate(rules):
            media = self.model.media(self.images()[step : step + 1])
            candidates, distances = run_to_exit(self.model, text, media, None, state, rule, step)
            pose, logit, state = candidates[-1].output
            assert self.config.language.exit_layers[len(candidates) - 2] == self.arrays[f"{key}/exit"][step]
            close(pose[0], self.arrays[f"{key}/pose"][step])
            close(logit.sigmoid(), self.arrays[f"{key}/grip_prob"][step])
            all_distances.append(distances)
        close(state.hidden, self.arrays[f"{key}/lstm_h"])
        close(state.cell, self.arrays[f"{key}/lstm_c"])
        return all_distances


def close(ours: torch.Tensor, recorded: np.ndarray | torch.Tensor) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(recorded), rtol=0.0, atol=TOLERANCE)


@pytest.fixture(scope="module", params=LAYOUTS)
def golden(request):
    with torch.inference_mode():
        yield Golden(GOLDEN / request.param)


def test_names_of_training_checkpoints_lead_to_the_same_weights(golden):
    """They carry a prefix, and the frozen decoder and the cross-attention under second names."""
    patterns = json.loads((golden.folder / "ckpt_keys.json").read_text())["saved_patterns"]
    exits = len(golden.config.language.exit_layers)

    def numbered(pattern: str) -> list[str]:
        """The pattern's names: every N counts from 0, as far as any of the lists goes."""
        names = [pattern]
        while any(".N" in name for name in names):
            names = [name.replace(".N", f".{number}", 1) for name in names for number in range(11)]
        return names

    ours = set(golden.model.state_dict())
    for pattern in patterns:
        found = set()
        for name in numbered(pattern):
            with contextlib.suppress(CheckpointError):
                found.add(official_name(name, exits))
        assert found & ours, pattern
    with pytest.raises(CheckpointError, match="something"):
        official_name("module.perceiver.something", exits)


def test_official_names_give_every_weight(golden):
    exits = len(golden.config.language.exit_layers)
    ours = {official_name(key, exits) for key in golden.weights}
    assert set(golden.model.state_dict()) <= ours


def test_preprocessing(golden):
    """The official code resizes with PIL; 8-bit rounding may differ by one level (1/255, divided by std)."""
    one_level = 1.0 / 255.0 / min(golden.config.preprocess.std)
    for step, recorded in enumerate(golden.images()):
        raw = golden.arrays["raw_rgb"][step], golden.arrays["raw_grip"][step]
        ours = golden.model.normalised(stack_views(*raw, golden.config.preprocess))
        assert (ours - recorded).abs().max() <= one_level + TOLERANCE


def test_prompt_and_token_ids(golden):
    vocabulary = {
        key.removeprefix("vocab/"): int(value) for key, value in golden.arrays.items() if key.startswith("vocab/")
    }
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer(core.to_str(), golden.config.language.max_tokens, golden.config.lowercase)
    texts = [str(text) for text in golden.arrays["texts"]]
    ids, mask = tokenizer.encode_batch(texts)
    assert ids.tolist() == golden.arrays["ids3"].tolist()
    assert mask.long().tolist() == golden.arrays["mask3"].tolist()
    assert [tokenizer.encode(texts[0])] == golden.arrays["ids1"].tolist()


def test_vision_tokens(golden):
    close(golden.model.vision(golden.tensor("rgb")), golden.arrays["clip_tokens_rgb"])


def test_resampler(golden):
    close(golden.model.resampler(golden.tensor("clip_tokens_rgb")), golden.arrays["perceiver_rgb"][:, 0])
    close(golden.model.media(golden.images()[:1]), golden.arrays["vision_x"][0])


def test_hidden_states(golden):
    media = golden.tensor("vision_x")[0]
    close(golden.hidden_states("1", media), golden.arrays["hidden_b1"])


def test_hidden_states_of_a_padded_batch(golden):
    media = golden.model.media(golden.images()[:3])
    close(golden.hidden_states("3", media), golden.arrays["hidden_b3_padded"])


def test_pooling_ignores_padding_unless_asked_to_copy_the_official_code(golden):
    recorded, mask = golden.tensor("hidden_b3_padded"), golden.tensor("mask3").bool()
    official = DeerModel(changed(golden.config, {"pool_padding": True}))
    for hidden in recorded:
        assert torch.equal(official.pooled(hidden, mask), hidden.amax(1))
        for row, length in enumerate(mask.sum(1)):
            assert torch.equal(golden.model.pooled(hidden, mask)[row], hidden[row, :length].amax(0))
    changed_by_padding = recorded.amax(2) != torch.stack([golden.model.pooled(hidden, mask) for hidden in recorded])
    assert changed_by_padding.float().mean().item() > 0.01


@pytest.mark.parametrize("position", range(4))
def test_static_runs(golden, position):
    layer = golden.config.language.exit_layers[position]
    golden.rollout([ThresholdRule.fixed(position)] * len(golden.images()), f"static/{layer}")


def test_runs_that_mix_exits(golden):
    layers = golden.config.language.exit_layers
    taken = [layers.index(layer) for layer in golden.arrays["alternating/exit"]]
    assert len(set(taken)) > 1
    golden.rollout([ThresholdRule.fixed(position) for position in taken], "alternating")


@pytest.mark.parametrize(("key", "limit"), [("dyn", 4), ("dyn_never", 4), ("dyn_max4", 2)])
def test_dynamic_runs(golden, key, limit):
    thresholds = (-1.0,) * 4 if key == "dyn_never" else tuple(golden.arrays["dyn_thresholds"].tolist())
    rule = ThresholdRule(thresholds).limited(limit)
    distances = golden.rollout([rule] * len(golden.images()), key)
    for step, found in enumerate(distances):
        np.testing.assert_allclose(found, golden.arrays[f"{key}/deltas/{step}"], atol=TOLERANCE)


def test_auxiliary_heads(golden):
    """The recording runs each exit's own head over three steps."""
    media = golden.model.media(golden.images()[:3])
    features = list(golden.model.exit_features(golden.text().repeated(3), media))[1:]
    for layer, head, feature in zip(
        golden.config.language.exit_layers, golden.model.auxiliary_heads, features, strict=True
    ):
        pose, logit, _ = head(feature[None])
        close(pose[0], golden.arrays[f"layerwise/{layer}/pose"])
        close(logit.sigmoid()[0], golden.arrays[f"layerwise/{layer}/grip_prob"][:, 0])


def test_a_window_equals_single_steps(golden):
    features = torch.randn(2, 5, golden.config.language.dim, generator=torch.Generator().manual_seed(0))
    pose, logit, state = golden.model.head(features)
    single = golden.model.head.initial_state(2)
    for step in range(5):
        one_pose, one_logit, single = golden.model.head(features[:, step : step + 1], None, single)
        close(one_pose[:, 0], pose[:, step])
        close(one_logit[:, 0], logit[:, step])
    close(single.hidden, state.hidden)


def solver_cases() -> list[str]:
    if not LAYOUTS:
        return []
    arrays = np.load(GOLDEN / LAYOUTS[0] / "io.npz")
    return sorted({key.split("/")[1] for key in arrays.files if key.startswith("solver/")}, key=int)


@pytest.mark.parametrize("case", solver_cases())
def test_solved_thresholds(golden, case):
    field = {key: golden.arrays[f"solver/{case}/{key}"].item() for key in ("dist", "ratio", "max_layer", "llm")}
    layers = [layer for layer in golden.config.language.exit_layers if layer <= field["max_layer"] - 1]
    shares = exit_shares(field["ratio"], len(layers), field["dist"], blind=int(field["llm"] == "mpt_9b"))
    thresholds = solve_thresholds(golden.tensor("solver_values"), shares)
    recorded = [golden.arrays[f"solver/{case}/thresholds/{layer}"].item() for layer in layers]
    assert thresholds == pytest.approx(recorded, abs=1e-7)


def train_features(golden: Golden) -> torch.Tensor:
    """(exits + 1, batch, window, dim) with padding in the pool, as the official training had it."""
    official = DeerModel(changed(golden.config, {"pool_padding": True})).eval()
    official.load_state_dict(golden.model.state_dict())
    images = torch.stack([golden.tensor("train_batch/rgb"), golden.tensor("train_batch/grip")], dim=2)
    return official.features(images, golden.tensor("train_batch/ids"), golden.tensor("train_batch/mask").bool())


def train_batch(golden: Golden) -> Batch:
    """The recorded batch with the exits that the official code drew."""
    boundary = golden.arrays["train_eval_mode/prev_len"].item()
    drawn = golden.tensor("train_eval_mode/segment_exit_index")
    segments = torch.where(torch.arange(12) < boundary, drawn[:, :1], drawn[:, 1:])
    actions = golden.tensor("train_batch/actions")
    return Batch(
        images=torch.stack([golden.tensor("train_batch/rgb"), golden.tensor("train_batch/grip")], dim=2),
        token_ids=golden.tensor("train_batch/ids"),
        token_mask=golden.tensor("train_batch/mask").bool(),
        proprioception=torch.zeros(2, 12, 15),
        target=torch.cat([actions[..., :6], actions[..., 6:].sign()], dim=-1),
        weight=torch.ones(2, 12),
        starts=torch.ones(2, dtype=torch.bool),
        exits={"uniform": golden.tensor("train_eval_mode/uniform_exit_index"), "segments": segments},
    )


def test_training_forward(golden):
    features, batch, shared = train_features(golden)[1:], train_batch(golden), golden.model.head
    keys = [*(f"aux/{k}" for k in range(len(features) - 1)), "last"]
    runs = list(zip(keys, golden.model.auxiliary_heads, features, strict=True))
    runs.append(("extra_uniform", shared, gather_exits(features, batch.exits["uniform"])))
    runs.append(("extra_segment", shared, gather_exits(features, batch.exits["segments"])))
    for key, head, feature in runs:
        pose, logit, _ = head(feature)
        close(pose, golden.arrays[f"train_eval_mode/{key}/0"])
        close(logit.sigmoid(), golden.arrays[f"train_eval_mode/{key}/1"][..., 0])


def recorded_parameters(golden: Golden, prefix: str) -> dict[str, np.ndarray]:
    """Recorded values of parameters by our names."""
    exits = len(golden.config.language.exit_layers)
    keys = [key for key in golden.arrays if key.startswith(prefix)]
    return {str(official_name(key.removeprefix(prefix), exits)): golden.arrays[key] for key in keys}


def test_one_training_step(golden, tmp_path):
    """The trainer's own update on the recorded batch: every head's loss, their sum, and what the step moves.

    Recorded with AdamW at 1e-3 without weight decay, and without dropout.
    """
    changes = {"pool_padding": True, "head": {"lstm_dropout": 0.0, "mlp_dropout": 0.0}}
    settings = Optimisation(weight_decay=0.0, frozen=("vision", "decoder"), ema_decay=0.0, precision="float32")
    exits = len(golden.config.language.exit_layers)
    with torch.inference_mode(False):
        model = DeerModel(changed(golden.config, changes))
        model.load_state_dict({name: value.clone() for name, value in golden.model.state_dict().items()})
        tokenizer = Tokenizer.train(["none"], golden.config.language.vocabulary + 300, 32)
        trainer = Trainer(model, tokenizer, settings, tmp_path, seed=0)
        optimiser = make_optimiser(trainer.model.train(), Phase(1, 1e-3, 0, schedule="constant"), settings)
        losses = trainer.update(train_batch(golden), optimiser)
    recorded = golden.arrays["train_losses/huber"] + 0.01 * golden.arrays["train_losses/bce"]
    names = [*(f"auxiliary_{k}" for k in range(exits)), "uniform", "segments"]
    assert [losses[name] for name in names] == pytest.approx(recorded.tolist(), abs=TOLERANCE)
    assert losses["loss"] == pytest.approx(golden.arrays["official_step_loss"].item(), abs=TOLERANCE)

    before, after = golden.model.state_dict(), trainer.model.state_dict()
    largest = {name: (after[name] - before[name]).abs().max().item() for name in before}
    moved = recorded_parameters(golden, "official_step_delta/")
    assert {name for name, change in largest.items() if change} == set(moved)
    for name, change in moved.items():
        assert largest[name] == pytest.approx(change.item(), abs=1e-7), name
    whole = recorded_parameters(golden, "params_after_step_sample/")
    assert whole
    for name, value in whole.items():
        # Adam divides a gradient by its size; where that is no more than its epsilon of 1e-8, rounding shows.
        np.testing.assert_allclose(after[name], value, atol=2e-5)


def test_threshold_values(golden):
    """Recorded at steps 5 to 10 of each window, on histories of randomly mixed exits."""
    features = train_features(golden)
    layers = torch.tensor(golden.config.language.exit_layers)
    exits = torch.searchsorted(layers, golden.tensor("generate/rand_layer_indices"))
    values, _ = action_values(golden.model.head, features, None, exits)
    ours = values[:, :, 5:11].flatten(1)
    close(ours, golden.arrays["generate/values"])


def test_state_is_what_the_head_returns(golden):
    state = golden.model.head.initial_state(1)
    assert isinstance(state, HeadState)
    feature = torch.randn(1, 1, golden.config.language.dim, generator=torch.Generator().manual_seed(1))
    first, again = (golden.model.head(feature, None, state) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(state.hidden, torch.zeros_like(state.hidden))
