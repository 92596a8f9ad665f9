"""What we do by default where the released code errs, and what reproduces it under official compatibility."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors
import torch
import torch.nn.functional as F

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, find, load, load_policy, save
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.official import name_in_release
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.preprocess import resize_uint8
from deer_policies.deer.presets import deer_nano, openflamingo_3b, openflamingo_9b
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.thresholds import solve_thresholds
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget
from deer_policies.training.augmentation import shift_clips
from deer_policies.training.episodes import Windows
from deer_policies.training.optimiser import make_optimiser
from deer_policies.training.recipe import Optimisation, Phase
from deer_policies.training.trainer import Trainer

OFFICIAL = {"compatibility": "official"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["open the drawer", "push the door left"], 300, max_tokens=32)


def test_the_choices():
    assert not deer_nano().official
    assert changed(deer_nano(), OFFICIAL).official
    with pytest.raises(ConfigError, match="compatibility is 'strict'; choose one of default, official"):
        changed(deer_nano(), {"compatibility": "strict"})


@pytest.mark.parametrize(("before", "now"), [(False, "default"), (True, "official")])
def test_configurations_of_before_can_be_read(before, now):
    values = deer_nano().to_dict()
    del values["compatibility"]
    assert DeerConfig.from_dict({**values, "pool_padding": before}).compatibility == now
    assert DeerConfig.from_dict(values).compatibility == "default"


def test_the_bundled_checkpoint_has_a_default_configuration():
    with safetensors.safe_open(find("deer-nano"), "pt") as file:
        written = json.loads(file.metadata()["config"])
    assert DeerConfig.from_dict(written).compatibility == "default"


class TestPooling:
    hidden = torch.tensor([[[1.0, -2.0], [0.5, -3.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])

    @pytest.mark.parametrize(("compatibility", "pooled"), [("default", [1.0, -2.0]), ("official", [9.0, 9.0])])
    def test_padding_takes_part_in_the_release_only(self, compatibility, pooled):
        with torch.device("meta"):
            model = DeerModel(changed(deer_nano(), {"compatibility": compatibility}), auxiliary_heads=False)
        assert model.pooled(self.hidden, self.mask)[0].tolist() == pooled


class TestShifts:
    def frames(self, official: bool, seed: int = 0) -> torch.Tensor:
        """Offsets (clips, frames, 2) in pixels, read back from images whose values are their coordinates."""
        rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
        image = torch.stack([rows, columns, rows])
        clips = image.expand(64, 6, 1, 3, 40, 40).contiguous()
        shifted = shift_clips(clips, (4,), torch.Generator().manual_seed(seed), official)
        return shifted[:, :, 0, :2, 20, 20] - 20.0

    def test_default_is_one_unbiased_draw_for_a_clip(self):
        offsets = self.frames(official=False)
        assert (offsets == offsets[:, :1]).all()
        assert (offsets.min(), offsets.max()) == (-4, 4)
        assert abs(offsets.mean()) < 0.6

    def test_official_is_a_draw_for_each_frame_that_leans_to_one_side(self):
        """facts, section 8.2: from -p+1 to p, half a pixel on average."""
        offsets = self.frames(official=True)
        assert all(len(clip.unique(dim=0)) > 1 for clip in offsets)
        assert (offsets.min(), offsets.max()) == (-3, 4)
        assert offsets.mean().item() == pytest.approx(0.5, abs=0.2)

    def test_official_equals_bilinear_sampling_of_the_padded_image(self):
        """The release samples a grid that it shifts by whole pixels; here the same grid, by another route."""
        images = torch.randn(1, 5, 1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
        shifted = shift_clips(images, (3,), torch.Generator().manual_seed(7), official=True)
        draws = torch.randint(1, 7, (5, 2), generator=torch.Generator().manual_seed(7))
        padded = F.pad(images[0, :, 0], (3, 3, 3, 3), mode="replicate")
        # A grid of 12 of the 18 pixels: scale 12 / 18, and the centre moves with the draw.
        top, left = ((draws - 3.0) * 2.0 / 18.0).unbind(1)
        theta = torch.tensor([[12 / 18, 0, 0], [0, 12 / 18, 0]]).repeat(5, 1, 1)
        theta[:, 0, 2], theta[:, 1, 2] = left, top
        grid = F.affine_grid(theta, [5, 3, 12, 12], align_corners=False)
        torch.testing.assert_close(
            shifted[0, :, 0], F.grid_sample(padded, grid, align_corners=False), rtol=0, atol=1e-4
        )

    @pytest.mark.parametrize("official", [False, True])
    def test_training_shifts_as_the_policy_says(self, tokenizer, tmp_path, monkeypatch, official):
        asked = []
        monkeypatch.setattr(
            "deer_policies.training.drawing.shift_clips",
            lambda images, shift_px, generator, official: asked.append(official) or 1 / 0,
        )
        config = changed(deer_nano(), OFFICIAL if official else {})
        trainer = Trainer(DeerModel(config), tokenizer, Optimisation(), tmp_path, seed=0)
        windows = type("Windows", (), {"images": np.zeros((1, 1, 2, 3, 96, 96), np.uint8)})
        with pytest.raises(ZeroDivisionError):
            trainer._drawer.draw(windows)
        assert asked == [official]


class TestTraining:
    @pytest.mark.parametrize("official", [False, True])
    def test_weight_decay_goes_by_names_in_the_release(self, official):
        """facts, section 8.6: a norm is decayed, too, whose name (ff.0.weight) does not say that it is one."""
        with torch.device("meta"):
            model = DeerModel(changed(openflamingo_9b(), OFFICIAL if official else {}))
        settings = Optimisation(weight_decay=0.1, decayed="cross_attention", frozen=("vision", "decoder"))
        groups = make_optimiser(model, Phase(1, 1e-4), settings).param_groups
        names = {parameter: name for name, parameter in model.named_parameters()}
        decayed = {names[parameter] for group in groups if group["weight_decay"] for parameter in group["params"]}
        spared = ("ff_gate", "attn_gate", "norm", "bias")
        in_release = {name: name_in_release(name, model.config) for name in names.values() if "layers." in name}
        ruled = {
            ours
            for ours, name in in_release.items()
            if "gated_cross_attn_layer" in name and not any(word in name for word in spared)
        }
        norms = {ours for ours in ruled if in_release[ours].endswith(".ff.0.weight")}
        assert len(norms) == 4
        assert decayed == (ruled if official else ruled - norms)

    @pytest.mark.parametrize("official", [False, True])
    def test_segments_change_at_one_step_of_a_batch_in_the_release(self, tokenizer, tmp_path, official):
        config = changed(deer_nano(), OFFICIAL if official else {})
        trainer = Trainer(DeerModel(config), tokenizer, Optimisation(shift_px=(0, 0)), tmp_path, seed=0)
        steps = (16, 12)
        windows = Windows(
            images=np.zeros((*steps, 2, 3, 96, 96), np.uint8),
            proprioception=np.zeros((*steps, 15), np.float32),
            labels=np.zeros((*steps, 3, 7), np.float32),
            weight=np.ones((*steps, 3), np.float32),
            scene=np.zeros((*steps, 0), np.float32),
            landmarks=np.zeros((*steps, 2, 0, 3), np.float32),
            focus=np.zeros((*steps, 0), np.float32),
            instructions=["open the drawer"] * 16,
            starts=np.ones(16, bool),
        )
        exits = trainer._drawer.draw(windows).exits["segments"]
        changes = (exits[:, 1:] != exits[:, :-1]).nonzero()
        assert len(changes) > 8
        assert (len(changes[:, 1].unique()) == 1) == official


class TestLoadedLayers:
    def test_a_limit_of_four_layers_loads_four_and_in_the_release_five(self):
        """facts, section 16, B4; full depth is the same in both."""
        config = openflamingo_3b()
        official = changed(config, OFFICIAL)
        assert [config.layers_to_load(exits) for exits in (1, 2, 6, None)] == [2, 4, 12, 12]
        assert [official.layers_to_load(exits) for exits in (1, 2, 6, None)] == [3, 5, 12, 12]
        with torch.device("meta"):
            assert len(DeerModel(config, exits=2).layers) == 4
            model = DeerModel(official, exits=2)
        assert len(model.layers) == 5
        assert model.exit_layers == (1, 3)

    def test_memory_counts_the_layer_that_never_runs(self):
        config = openflamingo_3b()
        one_layer = 50.34e6 + 36.71e6
        extra = CostModel(changed(config, OFFICIAL)).parameters(1) - CostModel(config).parameters(1)
        assert extra == pytest.approx(one_layer, rel=1e-3)
        assert CostModel(changed(config, OFFICIAL)).llm_gmac(1) == CostModel(config).llm_gmac(1)

    def test_a_checkpoint_loads_it_too(self, tokenizer, tmp_path):
        official = changed(deer_nano(), OFFICIAL)
        save(tmp_path / "x.safetensors", Checkpoint(DeerModel(official), tokenizer))
        peak = Budget(peak_llm_gmac=CostModel(official).llm_gmac(1))
        model = load(tmp_path / "x.safetensors", peak=peak).model
        assert (len(model.layers), model.exit_layers) == (5, (1, 3))


def test_actions_are_rounded_to_sixteen_bits_in_the_release_only():
    policy = load_policy("deer-nano")
    weights = policy.model.state_dict()
    official = DeerPolicy(
        DeerModel.from_weights(changed(policy.model.config, OFFICIAL), weights, auxiliary_heads=False), policy.tokenizer
    )
    default = DeerPolicy(DeerModel.from_weights(policy.model.config, weights, auxiliary_heads=False), policy.tokenizer)
    observation = example_observation(policy.info)
    rounded, exact = (p.step(observation, p.initial_state())[0].actions for p in (official, default))
    assert np.array_equal(rounded, exact.astype(np.float16).astype(np.float32))
    assert not np.array_equal(rounded, exact)


@pytest.mark.parametrize("size", [56, 224])
@pytest.mark.parametrize("source", [84, 200])
def test_bicubic_resizing_is_pillows_to_the_bit(size, source):
    """The official models saw images that Pillow had resized."""
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install -e .[sim]")
    rng = np.random.default_rng(source)
    # Noise reaches every rounding, and a picture of black and white the limits of the range.
    for pixels in (rng.integers(0, 256, (source, source, 3)), rng.integers(0, 2, (source, source, 3)) * 255):
        image = pixels.astype(np.uint8)
        pillow = np.asarray(image_module.fromarray(image).resize((size, size), image_module.Resampling.BICUBIC))
        config = changed(openflamingo_3b(), {"preprocess": {"image_size": size}, "vision": {"image_size": size}})
        assert np.array_equal(resize_uint8(image, config.preprocess).permute(1, 2, 0).numpy(), pillow)


def test_a_share_that_is_a_last_bit_short_counts_as_meant():
    values = torch.arange(1.0, 501.0).expand(2, 500)
    assert solve_thresholds(values, [0.4 - 1e-16, 0.6])[0] == 200.0
