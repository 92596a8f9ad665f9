"""Segments: each exports alone and gives the same numbers, they are all that a step runs, and share the weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.export import Dim, export

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.presets import deer_nano, openflamingo_9b
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.tokenizer import Tokenizer

SMALL_PARTS = {
    "preprocess": {"image_size": 32},
    "resampler": {"latents": 4, "layers": 1, "heads": 2, "head_dim": 16},
    "language": {"dim": 32, "layers": 4, "heads": 2, "vocabulary": 512, "cross_attention_head_dim": 16},
    "head": {"lstm_hidden": 16, "mlp_dims": [16]},
}
NANO = changed(
    deer_nano(), {**SMALL_PARTS, "vision": {"image_size": 32, "dim": 32, "stem_channels": [8, 8, 16, 32], "heads": 2}}
)
NINE = changed(
    openflamingo_9b(),
    {
        **SMALL_PARTS,
        "vision": {"image_size": 32, "patch_size": 16, "dim": 32, "layers": 1, "heads": 2},
        "compatibility": "official",
    },
)
"""Has layers without cross-attention, pools over padding, and a head without the robot state."""
TOKENS = Dim("tokens", min=2, max=32)


def build(config: DeerConfig) -> DeerModel:
    torch.manual_seed(0)
    return DeerModel(config, auxiliary_heads=False).eval().requires_grad_(False)


@pytest.fixture(params=[NANO, NINE], ids=lambda config: config.name)
def model(request) -> DeerModel:
    return build(request.param)


def text_inputs(model: DeerModel, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, mask, bias and latents; the last position is padding."""
    generator = torch.Generator().manual_seed(tokens)
    mask = torch.arange(tokens)[None] < tokens - 1
    text = model.text(torch.randint(4, 500, (1, tokens), generator=generator), mask)
    config = model.config
    media = torch.randn(1, config.views * config.resampler.tokens, config.vision.dim, generator=generator)
    return text.embedding, mask, text.bias, media


def exported_encode(model: DeerModel):
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    return export(model.segments.encode, (images,), dynamic_shapes=({0: Dim("images", min=1, max=8)},)).module()


def exported_layers(model: DeerModel, index: int):
    tokens = ({1: TOKENS}, {1: TOKENS}, {2: TOKENS, 3: TOKENS}, None)
    return export(model.segments.layers[index], text_inputs(model, 5), dynamic_shapes=tokens).module()


def test_images_to_latents_exports_for_any_number_of_views(model):
    unit = exported_encode(model)
    for views in (1, 3):
        images = torch.randint(0, 256, (views, 3, 32, 32), dtype=torch.uint8)
        torch.testing.assert_close(unit(images), model.segments.encode(images), rtol=0, atol=1e-6)


def test_layers_up_to_each_exit_export_for_texts_of_any_length(model):
    assert len(model.segments.layers) == len(model.exit_layers) + 1
    for index, segment in enumerate(model.segments.layers):
        unit, inputs = exported_layers(model, index), text_inputs(model, 9)
        for found, expected in zip(unit(*inputs), segment(*inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_head_exports_with_its_state_as_a_value(model):
    config = model.config
    robot = torch.randn(1, 1, 15) if config.head.use_proprioception else None
    shape = (config.head.lstm_layers, 1, config.head.lstm_hidden)

    def inputs() -> tuple[torch.Tensor, torch.Tensor | None, HeadState]:
        return torch.randn(1, 1, config.language.dim), robot, HeadState(torch.randn(shape), torch.randn(shape))

    unit, given = export(model.segments.head, inputs()).module(), inputs()
    (pose, logit, state), expected = unit(*given), model.head(*given)
    torch.testing.assert_close((pose, logit), expected[:2], rtol=0, atol=1e-6)
    torch.testing.assert_close((state.hidden, state.cell), (expected[2].hidden, expected[2].cell), rtol=0, atol=1e-6)


def test_a_policy_runs_on_exported_segments_and_asks_for_no_deeper_one():
    tokenizer = Tokenizer.train(["open the drawer"], 300, max_tokens=32)
    own, swapped = DeerPolicy(build(NANO), tokenizer), DeerPolicy(build(NANO), tokenizer)
    exported = tuple(exported_layers(own.model, index) for index in (0, 1))

    def too_deep(*_):
        raise AssertionError("a segment beyond the exit ran")

    swapped.model.segments = replace(
        own.model.segments, encode=exported_encode(own.model), layers=(*exported, too_deep)
    )
    for parameter in swapped.model.layers.parameters():
        parameter.fill_(float("nan"))
    observation = example_observation(own.info)
    actions = []
    for policy in (own, swapped):
        policy.set_exit_rule(ThresholdRule.fixed(0))
        actions.append(policy.step(observation, policy.initial_state())[0].actions)
    np.testing.assert_allclose(actions[1], actions[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["made", "copied", "from_weights"])
def test_segments_run_the_models_own_weights(kind):
    model = DeerModel(NANO)
    if kind == "copied":
        model = copy.deepcopy(model)
    elif kind == "from_weights":
        model = DeerModel.from_weights(NANO, model.state_dict())
    segments = model.segments
    parts = (segments.encode, *segments.layers, segments.head)
    held = [id(weight) for part in parts for weight in part.parameters()]
    apart = ("embedding", "auxiliary_heads")
    owned = [id(weight) for name, weight in model.named_parameters() if not name.startswith(apart)]
    assert sorted(held) == sorted(owned)
    assert len(model.state_dict()) == len(list(model.parameters()))
