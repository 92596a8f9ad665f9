"""What training starts from when a recipe names weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import Checkpoint, load, save
from deer_policies.deer.config import changed
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.training.recipe import load_recipe
from deer_ros.cli.training_start import starting_model

SMALL = {
    "vision": {"stem_channels": [8, 8, 8, 16], "dim": 16, "heads": 2},
    "resampler": {"latents": 2, "layers": 1, "heads": 2, "head_dim": 8},
    "language": {"dim": 16, "heads": 2, "layers": 4, "cross_attention_heads": 2, "cross_attention_head_dim": 8},
    "head": {"lstm_hidden": 16, "mlp_dims": [16], "proprioception_dim": 8},
}
RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"


def test_auxiliary_heads_that_the_weights_lack_begin_as_the_shared_one(tmp_path):
    recipe = replace(load_recipe(RECIPE), language=None, weights="start.safetensors", seed=5)
    config = changed(deer_nano(), SMALL)
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(["open the drawer"], config.language.vocabulary, config.language.max_tokens)
    for kept in (False, True):
        first = DeerModel(config)
        save(tmp_path / "start.safetensors", Checkpoint(first, tokenizer), auxiliary_heads=kept)
        start = load(tmp_path / "start.safetensors", auxiliary_heads=kept).model
        model = starting_model(recipe, config, start)
        for own, head in zip(first.auxiliary_heads, model.auxiliary_heads, strict=True):
            expected = (own if kept else first.head).state_dict()
            assert all(torch.equal(expected[name], tensor) for name, tensor in head.state_dict().items())
