"""Our resampler and gated cross-attention against those of the `open_flamingo` package from PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from deer_policies.deer.attention import GatedCrossAttention
from deer_policies.deer.config import ResamplerConfig
from deer_policies.deer.official import official_name
from deer_policies.deer.resampler import Resampler

MEDIA_DIM, DIM, TOKENS = 48, 40, 7


@pytest.fixture(scope="module")
def helpers() -> ModuleType:
    """The module with the package's layers, loaded by its path: the package itself wants libraries we don't have."""
    for name in ("einops", "einops_exts"):
        pytest.importorskip(name, reason=f"{name} is not installed, which open_flamingo's layers need: `make setup`")
    package = importlib.util.find_spec("open_flamingo")
    if package is None or not package.submodule_search_locations:
        pytest.skip("open_flamingo is not installed: `make setup`, or pip install --no-deps open-flamingo==2.0.1")
    path = Path(package.submodule_search_locations[0]) / "src/helpers.py"
    spec = importlib.util.spec_from_file_location("open_flamingo_layers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def randomised(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter drawn at random, gates and norms included, so that nothing hides."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = max(parameter.shape[-1], 1) ** -0.5 if parameter.ndim > 1 else 1.0
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return module.eval().requires_grad_(False)


def take_over(ours: torch.nn.Module, theirs: torch.nn.Module, prefix: str, our_prefix: str) -> None:
    """Loads their weights into ours by the names that an official checkpoint has them under."""
    state = {}
    for name, tensor in theirs.state_dict().items():
        found = official_name(f"{prefix}{name}", exits=1)
        assert found is not None
        state[found.removeprefix(our_prefix)] = tensor
    ours.load_state_dict(state)


@pytest.mark.parametrize("seed", [0, 1])
def test_resampler(helpers, seed):
    theirs = randomised(helpers.PerceiverResampler(dim=MEDIA_DIM), seed)
    ours = Resampler(MEDIA_DIM, ResamplerConfig(latents=64, layers=6, heads=8, head_dim=64), side=16)
    take_over(ours, theirs, "perceiver.", "resampler.")
    tokens = torch.randn(3, 16, MEDIA_DIM, generator=torch.Generator().manual_seed(seed))
    # Theirs takes (batch, images, frames, tokens, dim).
    expected = theirs(tokens[:, None, None])[:, 0]
    torch.testing.assert_close(ours.requires_grad_(False)(tokens), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_gated_cross_attention(helpers, seed):
    theirs = randomised(helpers.GatedCrossAttentionBlock(dim=DIM, dim_visual=MEDIA_DIM), seed)
    ours = GatedCrossAttention(DIM, MEDIA_DIM, heads=8, head_dim=64, mlp_ratio=4, gate_init=0.0)
    prefix = "lang_encoder.transformer.blocks.0.gated_cross_attn_layer."
    take_over(ours, theirs, prefix, "layers.0.cross_attention.")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, TOKENS, DIM, generator=generator)
    media = torch.randn(2, 12, MEDIA_DIM, generator=generator)
    # The prompt begins with the image's marker, so every position attends to it.
    locations = torch.zeros(2, TOKENS, dtype=torch.bool)
    locations[:, 0] = True
    expected = theirs(x, media[:, None], media_locations=locations)
    torch.testing.assert_close(ours.requires_grad_(False)(x, media), expected, rtol=1e-5, atol=1e-5)
    assert (expected - x).abs().max() > 0.1
