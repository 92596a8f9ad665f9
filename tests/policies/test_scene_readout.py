"""Reading the scene from the pictures: the readout's losses, and the phase that trains vision with it alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.landmark_tokens import LandmarkTokens
from deer_policies.errors import ConfigError
from deer_policies.training.recipe import PretrainingPhase
from deer_policies.training.scene_readout import SceneReadout
from deer_policies.training.vision_pretraining import pretrain_vision

STEPS, VIEWS, SIDE, LANDMARKS = 48, 2, 4, 3


def toy(tiny) -> dict[str, torch.Tensor]:
    """Patch tokens that show each landmark and where in its cell it is, and latents that tell the scene."""
    config, generator = tiny.config(), torch.Generator().manual_seed(0)
    assert config.vision.side == SIDE
    landmarks = torch.rand(STEPS, VIEWS, LANDMARKS, 3, generator=generator)
    landmarks[..., 2] = (landmarks[..., 2] > 0.3).float()
    patches = torch.zeros(STEPS, VIEWS, SIDE, SIDE, config.vision.dim)
    for step, view, index in np.ndindex(STEPS, VIEWS, LANDMARKS):
        column, row, present = landmarks[step, view, index].tolist()
        if not present:
            landmarks[step, view, index] = 0.0
            continue
        shown = torch.tensor([1.0, column * SIDE % 1.0, row * SIDE % 1.0])
        patches[step, view, int(row * SIDE), int(column * SIDE), 3 * index : 3 * index + 3] = shown
    media = torch.randn(STEPS, VIEWS * config.resampler.tokens, config.vision.dim, generator=generator)
    mixing = torch.randn(media[0].numel(), 2, generator=generator) / 8.0
    scene = media.flatten(1) @ mixing * torch.tensor([5.0, 0.1]) + torch.tensor([100.0, -3.0])
    return {"patches": patches.flatten(2, 3), "media": media, "scene": scene, "landmarks": landmarks}


def readout_for(tiny, inputs: dict[str, torch.Tensor]) -> SceneReadout:
    torch.manual_seed(0)
    return SceneReadout(tiny.config(), inputs["scene"])


def tokens_for(tiny) -> LandmarkTokens:
    torch.manual_seed(0)
    return LandmarkTokens(tiny.config().vision.dim, SIDE, LANDMARKS)


def loss_of(
    readout: SceneReadout, tokens: LandmarkTokens, inputs: dict[str, torch.Tensor], weight: torch.Tensor | None = None
) -> torch.Tensor:
    rest = {name: value for name, value in inputs.items() if name != "patches"}
    found = tokens.found(inputs["patches"].flatten(0, 1))
    return readout.loss(found, **rest, weight=torch.ones(STEPS) if weight is None else weight)


def test_it_learns_a_toy_mapping_and_finds_the_landmarks(tiny):
    inputs = toy(tiny)
    readout, tokens = readout_for(tiny, inputs), tokens_for(tiny)
    first = loss_of(readout, tokens, inputs).item()
    optimiser = torch.optim.Adam([*readout.parameters(), *tokens.parameters()], 0.1)
    for _ in range(250):
        optimiser.zero_grad()
        loss = loss_of(readout, tokens, inputs)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05 * first
    with torch.no_grad():
        found = tokens.found(inputs["patches"].flatten(0, 1))
        values = readout.values(inputs["media"].flatten(1)) * readout.std + readout.mean
    landmarks = inputs["landmarks"].flatten(0, 1)
    for sample, index in np.ndindex(*landmarks.shape[:2]):
        column, row, present = landmarks[sample, index].tolist()
        cell = int(found.logits[sample, index].argmax())
        assert cell == (SIDE * int(row * SIDE) + int(column * SIDE) if present else SIDE**2)
        if present:
            assert found.place[sample, index].tolist() == pytest.approx([column, row], abs=0.1 / SIDE)
    torch.testing.assert_close(values / readout.std, inputs["scene"] / readout.std, rtol=0, atol=0.5)


def test_padding_and_places_of_absent_landmarks_take_no_part(tiny):
    inputs = toy(tiny)
    readout, tokens, weight = readout_for(tiny, inputs), tokens_for(tiny), (torch.arange(STEPS) < 30).float()
    plain = loss_of(readout, tokens, inputs, weight)
    padded = {name: torch.where((torch.arange(STEPS) < 30).view(-1, *[1] * (value.ndim - 1)), value, 0.9 * value + 0.01)
              for name, value in inputs.items()}  # fmt: skip
    assert loss_of(readout, tokens, padded, weight) == plain
    absent = inputs["landmarks"].clone()
    absent[..., :2] = torch.where(absent[..., 2:] > 0.0, absent[..., :2], 0.7)
    assert loss_of(readout, tokens, {**inputs, "landmarks": absent}, weight) == plain
    assert loss_of(readout, tokens, inputs) != plain


def test_a_policy_that_looks_for_no_landmarks_has_only_the_scene_read(tiny):
    inputs = toy(tiny)
    readout, weight = readout_for(tiny, inputs), torch.ones(STEPS)
    told = inputs["media"], inputs["scene"], inputs["landmarks"], weight
    with_landmarks = loss_of(readout, tokens_for(tiny), inputs)
    assert 0.0 < readout.loss(None, *told) < with_landmarks
    model = DeerModel(tiny.config(resampler={"landmarks": 0}))
    assert model.landmarks_in(inputs["patches"]) is None


def test_a_token_tells_a_place_finer_than_a_patch(tiny):
    """Of two places in one patch the tokens differ, and that they do is not the patch's look alone."""
    tokens = tokens_for(tiny)
    with torch.no_grad():
        tokens.appearance.weight.zero_()
        tokens.find.weight.zero_()
        tokens.find.bias.zero_()
        tokens.find.weight[0, 0], tokens.find.weight[1, 1] = 30.0, 1.0
    patches = torch.zeros(2, SIDE**2, tiny.config().vision.dim)
    patches[:, 5, 0] = 1.0
    patches[1, 5, 1] = 0.5
    found, made = tokens.found(patches), tokens(patches)
    expected = [[1.5 / SIDE, 1.5 / SIDE], [1.75 / SIDE, 1.5 / SIDE]]
    torch.testing.assert_close(found.place[:, 0], torch.tensor(expected), rtol=0, atol=1e-5)
    assert (made[0, 0] - made[1, 0]).abs().max() > 0.1
    torch.testing.assert_close(made[0, 1:], made[1, 1:])


def test_values_count_alike_whatever_their_unit(tiny):
    inputs = toy(tiny)
    in_mm = {**inputs, "scene": 1000.0 * inputs["scene"]}
    losses = [float(loss_of(readout_for(tiny, each), tokens_for(tiny), each)) for each in (inputs, in_mm)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def bright_squares(tiny, seed: int) -> object:
    """An episode whose pictures show a bright cell where the landmark is, and whose scene is its place."""
    rng, episode = np.random.default_rng(seed), tiny.episode(24, seed=seed)
    cells = rng.integers(SIDE, size=(24, VIEWS, 2))
    images = np.zeros_like(episode.images)
    for step, view in np.ndindex(24, VIEWS):
        column, row = 8 * cells[step, view]
        images[step, view, :, row : row + 8, column : column + 8] = 255
    landmarks = np.ones((24, VIEWS, 1, 3), np.float32)
    landmarks[:, :, 0, :2] = (cells + 0.5) / SIDE
    return replace(episode, images=images, landmarks=landmarks, scene=landmarks[:, 0, 0, :2].copy())


def pretrained(tiny, steps: int, seed: int = 1) -> tuple[DeerModel, SceneReadout, float]:
    """Model and readout after the phase, and their loss on all frames."""
    episodes = [bright_squares(tiny, 0), bright_squares(tiny, 1)]
    scene, landmarks, images = (
        torch.from_numpy(np.concatenate([getattr(each, name) for each in episodes]))
        for name in ("scene", "landmarks", "images")
    )
    torch.manual_seed(0)
    config = tiny.config(resampler={"landmarks": 1})
    model = DeerModel(config)
    readout = SceneReadout(config, scene)
    settings = tiny.settings(brightness=0.1, precision="float32")
    if steps:
        pretrain_vision(model, readout, episodes, PretrainingPhase(steps, 1e-2, batch=16), settings, seed)
    with torch.no_grad():
        patches = model.patches(images)
        loss = readout.loss(
            model.landmarks_in(patches), model.media_of(patches), scene, landmarks, torch.ones(len(scene))
        )
    return model, readout, float(loss)


def test_pretraining_lowers_the_loss_and_leaves_language_and_heads_alone(tiny):
    untrained, readout, before = pretrained(tiny, 0)
    model, trained, after = pretrained(tiny, 40)
    assert after < 0.5 * before
    old, new = untrained.state_dict(), model.state_dict()
    assert {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])} == {"vision", "resampler"}
    moved = {name for name, value in readout.state_dict().items() if not torch.equal(value, trained.state_dict()[name])}
    assert moved == {"values.weight", "values.bias"}


def test_pretraining_is_repeatable_and_its_seed_decides(tiny):
    (first, readout, _), (second, again, _), (other, _, _) = (pretrained(tiny, 3, seed) for seed in (1, 1, 2))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in readout.state_dict().items())
    assert not all(torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("steps", [1, 10])
def test_a_phase_may_be_of_any_length(tiny, steps):
    pretrained(tiny, steps)


@pytest.mark.parametrize("change", [{"learning_rate": 0.0}, {"batch": 0}, {"steps": 0}])
def test_a_phase_is_checked(change):
    with pytest.raises(ConfigError, match="steps >= 1, learning_rate > 0, batch >= 1"):
        PretrainingPhase(**{"steps": 1, **change})
