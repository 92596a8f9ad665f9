"""What training minimises: batches as they are drawn, exits that are sampled, and the losses of all heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.errors import ConfigError
from deer_policies.training import arithmetic
from deer_policies.training.arithmetic import cpu_has_bfloat16
from deer_policies.training.drawing import BatchDrawer
from deer_policies.training.episodes import EpisodeStreams
from deer_policies.training.exit_sampling import draw_exits, exit_shares, gather_exits, segment_exits, uniform_exits
from deer_policies.training.focus_readout import FocusReadout
from deer_policies.training.losses import action_loss, distillation_loss
from deer_policies.training.objective import head_losses, total_loss
from deer_policies.training.readouts import Readouts
from deer_policies.training.recipe import Optimisation
from deer_policies.training.scene_readout import SceneReadout


def test_loss_is_zero_for_a_perfect_prediction_and_ignores_padding():
    target = torch.zeros(2, 3, 1, 7)
    target[..., 6] = 1.0
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])[..., None]
    pose, logit = torch.zeros(2, 3, 6), torch.full((2, 3, 1), 50.0)
    assert action_loss(pose, logit, target, weight, 0.01) == pytest.approx(0.0, abs=1e-6)
    pose[0, 2] = 5.0
    assert action_loss(pose, logit, target, weight, 0.01) == pytest.approx(0.0, abs=1e-6)
    pose[0, 1] = 0.5
    assert action_loss(pose, logit, target, weight, 0.01) == pytest.approx(0.125 / 3)
    assert action_loss(pose * 0, -logit, target, weight, 0.01) == pytest.approx(0.5)


def test_the_loss_of_a_chunk_is_that_of_its_actions_and_those_without_a_label_take_no_part():
    target = torch.zeros(1, 1, 2, 7)
    target[0, 0, 1, :3] = 0.5
    target[0, 0, :, 6] = torch.tensor([1.0, -1.0])
    poses = torch.cat([torch.zeros(6), torch.tensor([0.5] * 3 + [0.0] * 3)]).view(1, 1, 12)
    logits, both = torch.tensor([[[50.0, -50.0]]]), torch.ones(1, 1, 2)
    assert action_loss(poses, logits, target, both, 0.01) == pytest.approx(0.0, abs=1e-6)
    spoilt = poses.clone()
    spoilt[..., 6:] += 0.4
    # Huber: half the square.
    assert action_loss(spoilt, logits, target, both, 0.01) == pytest.approx(0.08 / 2)
    assert action_loss(spoilt, -logits, target, torch.tensor([[[0.0, 1.0]]]), 0.01) == pytest.approx(0.08 + 0.5)
    first = torch.tensor([[[1.0, 0.0]]])
    assert action_loss(spoilt, logits, target, first, 0.01) == pytest.approx(0.0, abs=1e-6)


def test_losses_of_all_heads_are_added_the_auxiliary_ones_by_their_factor():
    losses = {"uniform": torch.tensor(1.0), "segments": torch.tensor(2.0), "auxiliary_0": torch.tensor(4.0)}
    assert total_loss(losses, Optimisation()) == 7.0
    assert total_loss(losses, Optimisation(auxiliary_weight=0.25)) == 4.0
    read = {**losses, "scene": torch.tensor(10.0), "focus": torch.tensor(4.0)}
    assert total_loss(read, Optimisation(scene_weight=0.1, focus_weight=0.5)) == 10.0


def windows_of(tiny, streams=8):
    return EpisodeStreams([tiny.episode(6)], streams, 6, np.random.default_rng(0)).next()


def test_a_batch_is_drawn_with_what_the_recipe_asks_for_and_nothing_else(tiny):
    config, windows = tiny.config(), windows_of(tiny)
    tokenizer = tiny.tokenizer(config)

    def drawn(**changes):
        return BatchDrawer(tokenizer, tiny.settings(word_dropout=0.0, **changes), 4, (1,)).draw(windows)

    plain, bright = drawn(), drawn(brightness=0.3)
    assert torch.equal(plain.images, torch.from_numpy(windows.images))
    assert not torch.equal(bright.images, plain.images)
    assert not torch.equal(drawn(shift_px=(2, 0)).images[:, :, 0], plain.images[:, :, 0])
    for name, given in (("target", "labels"), *((same, same) for same in ("weight", "scene", "landmarks", "focus"))):
        assert torch.equal(getattr(plain, name), torch.from_numpy(getattr(windows, given)))
    assert [len(tokenizer.encode(text)) for text in windows.instructions] == plain.token_mask.sum(1).tolist()
    assert set(plain.exits) == {"uniform", "segments"}
    assert set(drawn(samplings=("segments",)).exits) == {"segments"}


def test_words_are_left_out_but_never_all(tiny):
    tokenizer, windows = tiny.tokenizer(tiny.config()), windows_of(tiny, streams=64)
    batch = BatchDrawer(tokenizer, tiny.settings(word_dropout=0.7), 4, (1,)).draw(windows)
    lengths, nothing = batch.token_mask.sum(1), len(tokenizer.encode(""))
    assert lengths.min() > nothing
    assert sum(int(n) < len(tokenizer.encode(text)) for n, text in zip(lengths, windows.instructions, strict=True)) > 20


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    return DeerModel(tiny.config()).eval()


def losses_of(tiny, model, states=None, starts=True, precision="float32"):
    settings = tiny.settings(precision=precision)
    batch = BatchDrawer(tiny.tokenizer(model.config), settings, len(model.exit_layers), (1,)).draw(windows_of(tiny))
    batch = replace(batch, starts=torch.full((8,), starts))
    with torch.no_grad():
        return head_losses(model, batch, states or {}, settings)


def test_recurrent_states_go_on_except_where_a_stream_starts_anew(tiny, model):
    fresh, states = losses_of(tiny, model)
    assert losses_of(tiny, model, states, starts=True)[0] == fresh
    went_on, _ = losses_of(tiny, model, states, starts=False)
    assert all(went_on[name] != fresh[name] for name in fresh)


def test_labels_that_are_not_known_take_no_part_in_any_head(tiny, model):
    """Every second action is not known, and no action of the last steps."""
    episode = tiny.episode(6)
    known = np.array([[True, False]] * 4 + [[False, False]] * 2)
    other = np.where(known[..., None], episode.labels, -episode.labels)
    found = []
    for labels, which in ((episode.labels, known), (other, known), (other, np.ones_like(known))):
        windows = EpisodeStreams([replace(episode, labels=labels, known=which)], 2, 6, np.random.default_rng(0)).next()
        assert windows.weight.tolist() == [which.tolist()] * 2
        settings = tiny.settings(precision="float32")
        batch = BatchDrawer(tiny.tokenizer(model.config), settings, len(model.exit_layers), (1,)).draw(windows)
        with torch.no_grad():
            found.append(head_losses(model, batch, {}, settings)[0])
    assert len(found[0]) == 4
    assert found[0] == found[1]
    assert all(found[2][name] != found[1][name] for name in found[1])


def test_steps_behind_an_episodes_end_are_not_read(tiny, model):
    """What is read from a window that an episode does not fill is read from the steps that there are."""
    episode, settings = tiny.episode(3), tiny.settings(precision="float32")
    scene = SceneReadout(model.config, torch.from_numpy(episode.scene))
    readouts = Readouts(scene, FocusReadout(model.config, torch.from_numpy(episode.focus)))
    losses = []
    for window in (3, 5):
        streams = EpisodeStreams([episode], 2, window, np.random.default_rng(0))
        batch = BatchDrawer(tiny.tokenizer(model.config), settings, len(model.exit_layers), (1,)).draw(streams.next())
        with torch.no_grad():
            losses.append(head_losses(model, batch, {}, settings, readouts)[0])
    for name in ("scene", "focus"):
        assert losses[1][name].item() == pytest.approx(losses[0][name].item(), rel=1e-5)


def test_losses_are_in_float32_on_a_processor_without_bfloat16(tiny, model, monkeypatch):
    monkeypatch.setattr(arithmetic, "cpu_has_bfloat16", lambda: False)
    whole, half = (losses_of(tiny, model, precision=precision)[0] for precision in ("float32", "bfloat16"))
    assert all(half[name].item() == whole[name].item() for name in whole)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor has no bfloat16, and PyTorch no LSTM in it then")
def test_half_precision_is_used_where_the_recipe_says(tiny, model):
    whole, half = (losses_of(tiny, model, precision=precision)[0] for precision in ("float32", "bfloat16"))
    assert all(half[name] != whole[name] for name in whole)
    assert all(half[name].item() == pytest.approx(whole[name].item(), rel=0.05) for name in whole)


def test_uniform_exits_change_from_step_to_step_and_segments_have_at_most_two():
    generator = torch.Generator().manual_seed(0)
    uniform = uniform_exits(64, 12, (1.0,) * 4, generator)
    assert set(uniform.unique().tolist()) == {0, 1, 2, 3}
    assert max(len(row.unique_consecutive()) for row in uniform) > 4
    segments = segment_exits(64, 12, (1.0,) * 4, generator)
    assert set(segments.unique().tolist()) == {0, 1, 2, 3}
    assert max(len(row.unique_consecutive()) for row in segments) == 2


def test_exits_are_drawn_by_their_shares():
    generator = torch.Generator().manual_seed(0)
    drawn = draw_exits(("uniform", "segments"), 500, 12, (6.0, 2.0, 1.0, 1.0), generator)
    for exits in drawn.values():
        found = torch.bincount(exits.flatten(), minlength=4) / exits.numel()
        assert torch.allclose(found, torch.tensor([0.6, 0.2, 0.1, 0.1]), atol=0.05)
    assert max(len(row.unique_consecutive()) for row in drawn["segments"]) == 2
    assert exit_shares(Optimisation(), 3) == (1.0, 1.0, 1.0)
    with pytest.raises(ConfigError, match="exit_shares has 2 shares and the policy 3 exits"):
        exit_shares(Optimisation(exit_shares=(1.0, 2.0)), 3)


def test_batches_and_held_out_losses_take_the_recipes_shares(tiny):
    config, windows = tiny.config(), windows_of(tiny)
    settings = tiny.settings(exit_shares=(1e-9, 1.0))
    batch = BatchDrawer(tiny.tokenizer(config), settings, 2, (1,)).draw(windows)
    assert all((exits == 1).all() for exits in batch.exits.values())
    with pytest.raises(ConfigError, match="give one for each"):
        BatchDrawer(tiny.tokenizer(config), settings, 4, (1,))


def test_another_head_is_imitated_like_labels_and_learns_nothing_from_it():
    pose, logit = torch.zeros(1, 2, 6, requires_grad=True), torch.zeros(1, 2, 1, requires_grad=True)
    taught = torch.full((1, 2, 6), 0.5, requires_grad=True), torch.full((1, 2, 1), 50.0, requires_grad=True)
    weight = torch.tensor([[[1.0], [0.0]]])
    loss = distillation_loss(pose, logit, *taught, weight, 0.01)
    # Huber: half the square; and the entropy of a coin for the gripper.
    assert loss.item() == pytest.approx(0.125 + 0.01 * np.log(2.0))
    loss.backward()
    assert pose.grad[0, 0].abs().min() > 0.0
    assert logit.grad[0, 0] < 0.0
    assert pose.grad[0, 1].abs().max() == 0.0
    assert all(tensor.grad is None for tensor in taught)
    labels = torch.full((1, 2, 1, 7), 0.5)
    assert loss.item() == pytest.approx(action_loss(pose, logit, labels, weight, 0.01).item())


def test_all_heads_imitate_the_deepest_exits_own(tiny, model):
    settings = tiny.settings(precision="float32", distillation_weight=2.0)
    batch = BatchDrawer(tiny.tokenizer(model.config), settings, len(model.exit_layers), (1,)).draw(windows_of(tiny))
    with torch.no_grad():
        losses, _ = head_losses(model, batch, {}, settings)
        plain, _ = head_losses(model, batch, {}, replace(settings, distillation_weight=0.0))
    assert "distillation" not in plain
    assert losses["distillation"] > 0.0
    expected = total_loss(plain, settings) + 2.0 * losses["distillation"]
    assert total_loss(losses, settings).item() == pytest.approx(expected.item())
    losses, _ = head_losses(model, batch, {}, settings)
    model.zero_grad()
    losses["distillation"].backward()
    moved = [
        sum(float(part.grad.abs().sum()) for part in head.parameters() if part.grad is not None)
        for head in (model.head, *model.auxiliary_heads)
    ]
    model.zero_grad()
    assert moved[-1] == 0.0
    assert min(moved[:-1]) > 0.0


def test_gather_takes_each_step_from_its_exit():
    features = torch.arange(3)[:, None, None, None].expand(3, 2, 5, 4).float()
    exits = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 0, 0, 1]])
    assert torch.equal(gather_exits(features, exits), exits[..., None].expand(2, 5, 4).float())
