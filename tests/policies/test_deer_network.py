"""The network: configuration, pooling, gates, head state, and the layers that an exit leaves out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from deer_policies.deer.action_head import ActionHead, HeadState, encoded_proprioception
from deer_policies.deer.attention import attend
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.language import alibi_slopes, attention_bias
from deer_policies.deer.presets import PRESETS, deer_nano, openflamingo_3b, openflamingo_9b, preset
from deer_policies.deer.vision import VisionEncoder
from deer_policies.errors import ConfigError

BATCH, WINDOW, TOKENS = 2, 3, 9


@pytest.fixture(scope="module")
def model() -> DeerModel:
    torch.manual_seed(0)
    return DeerModel(deer_nano()).eval()


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (batch, window, views, 3, h, w), token ids and mask; the second instruction is shorter."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (BATCH, WINDOW, 2, 3, 96, 96), dtype=torch.uint8, generator=generator)
    ids = torch.randint(4, 512, (BATCH, TOKENS), generator=generator)
    mask = torch.arange(TOKENS)[None] < torch.tensor([[TOKENS], [5]])
    return images, ids, mask


@pytest.mark.parametrize("name", PRESETS)
def test_configurations_survive_json(name):
    config = preset(name)
    assert DeerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_exits_of_the_official_sizes():
    assert openflamingo_3b().language.exit_layers == (1, 3, 5, 7, 9, 11)
    assert openflamingo_9b().language.exit_layers == (1, 3, 5, 7, 9, 11, 13, 15)
    nine = openflamingo_9b().language
    assert [layer for layer in range(16) if nine.has_cross_attention(layer)] == [3, 7, 11, 15]


def test_an_odd_number_of_layers_still_ends_with_an_exit():
    assert changed(deer_nano(), {"language": {"layers": 5}}).language.exit_layers == (1, 3, 4)


def test_official_parameter_counts():
    """facts: language layers with embedding 1148 M (3B, 12 layers), head 40.95 M, resampler 63.02 M."""
    with torch.device("meta"):
        model = DeerModel(openflamingo_3b(), auxiliary_heads=False)

    def millions(*parts) -> float:
        return sum(parameter.numel() for part in parts for parameter in part.parameters()) / 1e6

    assert millions(model.layers, model.embedding) == pytest.approx(1148, abs=1)
    assert millions(model.head) == pytest.approx(40.95, abs=0.01)
    assert millions(model.resampler) == pytest.approx(63.02, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"language": {"exit_interval": 1}}, "exit_interval is 1"),
        ({"vision": {"dim": 130}}, "multiple of heads"),
        ({"vision": {"image_size": 100}}, "multiple of patch_size"),
        ({"vision": {"patch_size": 6}}, "a power of two"),
        ({"vision": {"patch_size": 32}}, "or more"),
        ({"vision": {"stem_channels": [16, 32, 64]}}, "the last 96"),
        ({"head": {"horizon": 0}}, "at least 1"),
        ({"vision": {"activation": "swish"}}, "choose one of quick_gelu, gelu"),
        ({"preprocess": {"image_size": 112}}, "vision takes 96"),
        ({"preprocess": {"static_shape": [200, 300, 3]}}, "crop the camera"),
        ({"head": {"mlp_dropout": 1.5}}, "must be in"),
        ({"head": {"proprioception_std": [0.0] * 18}}, "above 0"),
        ({"head": {"lstm_layers": 0}}, "at least 1"),
        ({"language": {"colour": 3}}, "unknown settings"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        changed(deer_nano(), changes)


def test_unknown_preset():
    with pytest.raises(ConfigError, match="deer-nano"):
        preset("deer-mega")


def test_nano_is_small():
    with torch.device("meta"):
        model = DeerModel(deer_nano(), auxiliary_heads=False)
    assert sum(parameter.numel() for parameter in model.parameters()) < 5e6


def test_the_small_policys_position_embedding_begins_as_waves_over_column_and_row():
    side, quarter = 12, 24
    found = VisionEncoder(deer_nano().vision).position_embedding.detach()
    assert found.shape == (side * side, 4 * quarter)
    grid = found.view(side, side, 4 * quarter)
    sines, cosines = grid[..., : 2 * quarter], grid[..., 2 * quarter :]
    torch.testing.assert_close(sines.square() + cosines.square(), torch.ones_like(sines))
    columns, rows = (torch.cat([part[..., cut] for part in (sines, cosines)], -1)
                     for cut in (slice(0, quarter), slice(quarter, None)))  # fmt: skip
    assert torch.equal(columns, columns[:1].expand_as(columns))
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert torch.equal(columns[0], rows[:, 0])
    place = torch.linspace(-1.0, 1.0, side)
    for index, waves in ((0, 1), (quarter - 1, side / 2)):
        expected = torch.sin(waves * torch.pi * place)
        torch.testing.assert_close(sines[0, :, index], expected, rtol=0, atol=1e-5)
    assert torch.cdist(found, found).fill_diagonal_(9.0).min() > 1.0


def test_encoders_that_take_pretrained_weights_begin_with_small_random_positions():
    config = replace(openflamingo_3b().vision, image_size=56, dim=64, layers=1, heads=4)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(VisionEncoder(config).position_embedding.detach())
    assert drawn[0].shape == (17, 64)
    assert drawn[0].std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("channels", "patch_size", "strides"),
    [([8, 96], 4, [2, 2]), ([8, 16, 96], 4, [2, 2, 1]), ([96], 1, [1]), ([8, 16, 32, 96], 16, [2, 2, 2, 2])],
)
def test_the_first_convolutions_of_a_stem_halve_the_image_until_a_pixel_is_a_token(channels, patch_size, strides):
    config = changed(deer_nano(), {"vision": {"stem_channels": channels, "patch_size": patch_size}}).vision
    encoder = VisionEncoder(config)
    assert [part.stride[0] for part in encoder.stem if isinstance(part, torch.nn.Conv2d)] == strides
    assert encoder.stem(torch.zeros(1, 3, 96, 96)).shape == (1, 96, 96 // patch_size, 96 // patch_size)
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 96, 96)).shape == (1, config.tokens, 96)


def test_feature_shapes(model, clips):
    with torch.inference_mode():
        features = model.features(*clips)
    assert features.shape == (5, BATCH, WINDOW, model.config.language.dim)
    assert not any(torch.equal(features[0], deeper) for deeper in features[1:])


def test_features_do_not_depend_on_the_padding(model, clips):
    images, ids, mask = clips
    with torch.inference_mode():
        both = model.features(images, ids, mask)[:, 1]
        alone = model.features(images[1:], ids[1:, :5], mask[1:, :5])[:, 0]
        torch.testing.assert_close(both, alone, rtol=0, atol=1e-5)
        official = DeerModel.from_weights(changed(model.config, {"compatibility": "official"}), model.state_dict())
        padded = official.eval().features(images, ids, mask)[:, 1]
    assert (padded - alone).abs().max() > 1e-2


def test_each_frame_of_a_clip_is_seen(model, clips):
    images, ids, mask = clips
    moved = images.clone()
    moved[:, 1, 1] = 255 - moved[:, 1, 1]
    with torch.inference_mode():
        before, after = model.features(images, ids, mask), model.features(moved, ids, mask)
    difference = (before - after).abs().amax((0, 1, 3))
    assert (difference > 1e-4).tolist() == [False, True, False]


def test_float_images_count_as_normalised(model):
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (model.config.preprocess.mean, model.config.preprocess.std)
    )
    torch.testing.assert_close(model.normalised(image), (image / 255.0 - mean) / std)
    assert model.normalised(image.float()) is not None
    assert torch.equal(model.normalised(image.float()), image.float())


def test_closed_gates_hide_the_images(model, clips):
    images, ids, mask = clips
    shut = DeerModel(changed(model.config, {"language": {"gate_init": 0.0}})).eval()
    with torch.inference_mode():
        assert torch.equal(shut.features(images, ids, mask), shut.features(255 - images, ids, mask))
        assert not torch.equal(model.features(images, ids, mask), model.features(255 - images, ids, mask))


def test_explicit_attention_equals_the_fused_kernel():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, generator=generator) for _ in range(3))
    bias = attention_bias(torch.tensor([[True] * 6, [True] * 4 + [False] * 2]), alibi_slopes(4))
    fused = attend(q, k, v, bias)
    trained = attend(q.clone().requires_grad_(), k, v, bias)
    explicit = attend(q, k, v, bias, fused=False)
    torch.testing.assert_close(explicit, fused, rtol=0, atol=1e-6)
    assert torch.equal(trained, explicit)


def test_attention_bias():
    bias = attention_bias(torch.tensor([[True, True, False]]), alibi_slopes(2))[0]
    inf = float("inf")
    # Slopes are 2^-4 and 2^-8; the bias grows towards the last position.
    assert bias[0].tolist() == [[-2 / 16, -inf, -inf], [-2 / 16, -1 / 16, -inf], [-2 / 16, -1 / 16, -inf]]
    assert bias[1, 1, 0] == -2 / 256


def test_slopes_of_heads_that_are_no_power_of_two():
    assert alibi_slopes(3).tolist() == pytest.approx([2 ** (-8 / 3), 2 ** (-16 / 3), 2**-8])
    assert alibi_slopes(3, interleaved=True).tolist() == [2**-4, 2**-8, 2**-2]
    assert torch.equal(alibi_slopes(8, interleaved=True), alibi_slopes(8))


def test_a_window_equals_single_steps(model):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(BATCH, 4, model.config.language.dim, generator=generator)
    robot = torch.randn(BATCH, 4, 15, generator=generator)
    with torch.inference_mode():
        pose, logit, state = model.head(features, robot)
        single = None
        for step in range(4):
            one = slice(step, step + 1)
            one_pose, one_logit, single = model.head(features[:, one], robot[:, one], single)
            torch.testing.assert_close(one_pose[:, 0], pose[:, step], rtol=0, atol=1e-5)
            torch.testing.assert_close(one_logit[:, 0], logit[:, step], rtol=0, atol=1e-5)
    torch.testing.assert_close(single.cell, state.cell, rtol=0, atol=1e-5)


def test_state_helpers():
    state = HeadState(torch.ones(2, 3, 4, requires_grad=True), torch.ones(2, 3, 4))
    kept = state.kept(torch.tensor([True, False, True]))
    assert kept.hidden[:, 1].abs().sum() == 0
    assert torch.equal(kept.cell[:, 2], state.cell[:, 2])
    assert not state.detached().hidden.requires_grad


def test_angles_wrap(model):
    robot = torch.zeros(1, 1, 15)
    robot[..., 3] = torch.pi - 1e-3
    wrapped = robot.clone()
    wrapped[..., 3] -= 2 * torch.pi
    encoder = model.head.proprioception
    torch.testing.assert_close(encoder(robot), encoder(wrapped), rtol=0, atol=1e-5)
    robot[..., 3] = 0.5
    assert (encoder(robot) - encoder(wrapped)).abs().max() > 1e-2


def test_proprioception_is_normalised_by_the_configuration(model):
    config = model.config.with_proprioception_statistics(torch.full((18,), 2.0), torch.full((18,), 4.0))
    scaled = DeerModel.from_weights(config, model.state_dict()).head.proprioception
    robot = torch.rand(1, 1, 15)
    expected = (encoded_proprioception(robot) - 2.0) / 4.0
    torch.testing.assert_close(scaled(robot), model.head.proprioception.layers(expected))


def test_a_head_without_the_robot_state_it_needs(model):
    with pytest.raises(ValueError, match="proprioception"):
        model.head(torch.zeros(1, 1, model.config.language.dim))


@pytest.mark.parametrize(("mode", "active"), [("layerwise", 3), ("last", 1)])
def test_dropout_modes(mode, active):
    config = changed(
        openflamingo_3b(), {"head": {"lstm_hidden": 8, "mlp_dims": [8, 8], "dropout_mode": mode, "mlp_dropout": 0.5}}
    ).head
    rates = [layer.p for layer in ActionHead(8, config).pose if isinstance(layer, torch.nn.Dropout)]
    assert sum(rate > 0 for rate in rates) == active
    assert rates[-1] == 0.5


def test_training_reaches_every_weight(model, clips):
    images, ids, mask = clips
    trained = DeerModel(model.config)
    features = trained.features(images, ids, mask)
    robot = torch.randn(BATCH, WINDOW, 15)
    loss = torch.zeros(())
    for head, feature in zip((trained.head, *trained.auxiliary_heads), features, strict=True):
        pose, logit, _ = head(feature, robot)
        loss = loss + pose.square().mean() + logit.square().mean()
    loss.backward()
    silent = [
        name for name, weight in trained.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    assert silent == []
