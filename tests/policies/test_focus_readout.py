"""Reading what an instruction is about: at each exit from its own features, whatever the unit, without padding."""

import pytest
import torch

from deer_policies.training.focus_readout import FocusReadout

BATCH, WINDOW, VALUES = 6, 5, 3


def toy(tiny):
    """Features (exits, batch, window, dim) of which each exit tells the values in a way of its own; and the values."""
    config, generator = tiny.config(), torch.Generator().manual_seed(0)
    exits, dim = len(config.language.exit_layers), config.language.dim
    assert exits > 1
    focus = torch.randn(BATCH, WINDOW, VALUES, generator=generator) * torch.tensor([5.0, 0.1, 1.0]) + 7.0
    ways = torch.randn(exits, VALUES, dim, generator=generator)
    plain = (focus - focus.mean((0, 1))) / focus.std((0, 1))
    return torch.einsum("bwv,evd->ebwd", plain, ways), focus


def readout_for(tiny, focus):
    torch.manual_seed(0)
    return FocusReadout(tiny.config(), focus.flatten(0, 1))


def test_every_exit_learns_to_tell_the_values_from_its_own_features(tiny):
    features, focus = toy(tiny)
    readout, weight = readout_for(tiny, focus), torch.ones(BATCH, WINDOW)
    optimiser = torch.optim.Adam(readout.parameters(), 0.03)
    first = readout.loss(features, focus, weight).item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = readout.loss(features, focus, weight)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.02 * first
    assert readout.loss(features.flip(0), focus, weight).item() > 0.2 * first


def test_padding_takes_no_part_and_units_do_not_matter(tiny):
    features, focus = toy(tiny)
    weight = (torch.arange(WINDOW) < 3).float().expand(BATCH, WINDOW)
    plain = readout_for(tiny, focus).loss(features, focus, weight)
    padded = torch.where(weight[..., None] > 0.0, features, 9.0)
    assert readout_for(tiny, focus).loss(padded, focus, weight) == plain
    assert readout_for(tiny, focus).loss(padded, focus, torch.ones_like(weight)) != plain
    in_mm = readout_for(tiny, 1000.0 * focus).loss(features, 1000.0 * focus, weight)
    assert in_mm.item() == pytest.approx(plain.item(), rel=1e-3)
