"""Training: losses, exit sampling, augmentation, episode streams, the trainer, recipes, calibration."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import changed
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.training.augmentation import jitter_clips, shift_clips
from deer_policies.training.calibration import calibrate, encode
from deer_policies.training.episodes import Episode, EpisodeStreams, load_episode, save_episode
from deer_policies.training.exit_sampling import gather_exits, segment_exits, uniform_exits
from deer_policies.training.losses import action_loss
from deer_policies.training.recipe import Optimisation, Phase, load_recipe
from deer_policies.training.trainer import Trainer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TEXTS = ("open the drawer", "push the door left")


def tiny_config():
    return changed(
        deer_nano(),
        {
            "preprocess": {"image_size": 32},
            "vision": {"image_size": 32, "stem_channels": [8, 8, 8, 16], "dim": 16, "heads": 2},
            "resampler": {"latents": 2, "layers": 1, "heads": 2, "head_dim": 8},
            "language": {"dim": 16, "heads": 2, "layers": 4, "cross_attention_heads": 2, "cross_attention_head_dim": 8},
            "head": {"lstm_hidden": 16, "mlp_dims": [16], "proprioception_dim": 8},
        },
    )


def tiny_tokenizer(config):
    return Tokenizer.train(TEXTS, config.language.vocabulary, config.language.max_tokens)


def episode(steps, task="open_drawer", seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (steps, 2, 3, 32, 32), dtype=np.uint8)
    labels = rng.uniform(-1, 1, (steps, 7)).astype(np.float32)
    labels[:, 6] = np.sign(labels[:, 6])
    return Episode(images, rng.normal(size=(steps, 15)).astype(np.float32), labels, task, TEXTS)


def test_loss_is_zero_for_a_perfect_prediction_and_ignores_padding():
    target = torch.zeros(2, 3, 7)
    target[..., 6] = 1.0
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    pose, logit = torch.zeros(2, 3, 6), torch.full((2, 3), 50.0)
    assert action_loss(pose, logit, target, weight, 0.01) == pytest.approx(0.0, abs=1e-6)
    pose[0, 2] = 5.0
    assert action_loss(pose, logit, target, weight, 0.01) == pytest.approx(0.0, abs=1e-6)
    pose[0, 1] = 0.5
    assert action_loss(pose, logit, target, weight, 0.01) == pytest.approx(0.125 / 3)
    assert action_loss(pose * 0, -logit, target, weight, 0.01) == pytest.approx(0.5)


def test_uniform_exits_change_from_step_to_step_and_segments_have_at_most_two():
    generator = torch.Generator().manual_seed(0)
    uniform = uniform_exits(64, 12, 4, generator)
    assert set(uniform.unique().tolist()) == {0, 1, 2, 3}
    assert max(len(row.unique_consecutive()) for row in uniform) > 4
    segments = segment_exits(64, 12, 4, generator)
    assert set(segments.unique().tolist()) == {0, 1, 2, 3}
    assert max(len(row.unique_consecutive()) for row in segments) == 2


def test_gather_takes_each_step_from_its_exit():
    features = torch.arange(3)[:, None, None, None].expand(3, 2, 5, 4).float()
    exits = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 0, 0, 1]])
    assert torch.equal(gather_exits(features, exits), exits[..., None].expand(2, 5, 4).float())


def test_shift_is_one_for_a_clip_and_view_and_differs_between_clips():
    frame = torch.randint(0, 256, (1, 1, 2, 3, 32, 32), dtype=torch.uint8)
    clips = frame.expand(6, 5, 2, 3, 32, 32).contiguous()
    shifted = shift_clips(clips, (4, 0), torch.Generator().manual_seed(1))
    assert shifted.dtype == torch.uint8
    assert all(torch.equal(shifted[:, 0], shifted[:, step]) for step in range(5))
    assert any(not torch.equal(shifted[0], shifted[sample]) for sample in range(1, 6))
    assert torch.equal(shifted[:, :, 1], clips[:, :, 1])


def test_jitter_keeps_type_and_does_nothing_at_zero():
    clips = torch.full((4, 3, 2, 3, 8, 8), 100, dtype=torch.uint8)
    assert torch.equal(jitter_clips(clips, 0.0, torch.Generator()), clips)
    jittered = jitter_clips(clips, 0.3, torch.Generator().manual_seed(0))
    assert jittered.dtype == torch.uint8
    assert len(jittered.unique()) > 1
    assert all(len(clip.unique()) == 1 for clip in jittered)


def test_streams_play_episodes_from_start_to_end():
    first = episode(10)
    streams = EpisodeStreams([first], batch=1, window=4, rng=np.random.default_rng(0))
    windows = [streams.next() for _ in range(4)]
    assert [bool(part.starts[0]) for part in windows] == [True, False, False, True]
    assert [part.weight.sum() for part in windows] == [4, 4, 2, 4]
    assert np.array_equal(np.concatenate([part.labels[0] for part in windows[:3]])[:10], first.labels)
    assert np.array_equal(np.concatenate([part.images[0] for part in windows[:3]])[:10], first.images)


def test_streams_draw_tasks_evenly_however_many_episodes_each_has():
    episodes = [episode(4, "a")] * 19 + [episode(4, "b", seed=1)]
    streams = EpisodeStreams(episodes, batch=1, window=4, rng=np.random.default_rng(0))
    seen = [np.array_equal(streams.next().labels[0], episodes[-1].labels) for _ in range(200)]
    assert 70 < sum(seen) < 130


def test_streams_draw_a_wording_for_each_window():
    streams = EpisodeStreams([episode(40)], batch=1, window=4, rng=np.random.default_rng(0))
    assert {streams.next().instructions[0] for _ in range(10)} == set(TEXTS)


def test_no_episode_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match="collect demonstrations"):
        EpisodeStreams([], 1, 4, np.random.default_rng(0))


def test_episode_file_round_trip_and_damage(tmp_path):
    path = tmp_path / "a" / "episode.npz"
    original = episode(5)
    save_episode(path, original)
    read = load_episode(path, {"open_drawer": ("other words",)})
    assert np.array_equal(read.images, original.images)
    assert np.array_equal(read.labels, original.labels)
    assert read.instructions == ("other words",)
    assert [file.name for file in path.parent.iterdir()] == ["episode.npz"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"episode\.npz is not an episode file"):
        load_episode(path, {"open_drawer": ("x",)})


def make_trainer(folder, settings=None):
    config = tiny_config()
    torch.manual_seed(0)
    settings = settings or Optimisation(batch=2, window=5, ema_decay=0.5, brightness=0.0, shift_px=(0, 0))
    return Trainer(DeerModel(config), tiny_tokenizer(config), settings, folder, seed=1)


def streams_of(seed=0):
    return EpisodeStreams([episode(10), episode(10, "b", 1)], 2, 5, np.random.default_rng(seed))


def losses(folder):
    import json

    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_training_learns_a_small_data_set(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.run(Phase(50, 3e-3, 5), streams_of(), "first")
    trainer.run(Phase(150, 3e-3, 5), streams_of(), "second")
    trajectory = losses(tmp_path)
    assert trajectory[-1] < 0.8 * trajectory[0]


def test_heads_only_leaves_everything_else_alone(tmp_path):
    trainer = make_trainer(tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run(Phase(3, 1e-2, 0, heads_only=True), streams_of(), "heads")
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith(("head.", "auxiliary_heads.")) for name in moved)


def test_without_auxiliary_loss_the_auxiliary_heads_stay_as_they_were(tmp_path):
    settings = Optimisation(batch=2, window=5, auxiliary_weight=0.0, weight_decay=0.0)
    trainer = make_trainer(tmp_path, settings)
    before = {name: value.clone() for name, value in trainer.model.auxiliary_heads.state_dict().items()}
    trainer.run(Phase(3, 1e-2, 0), streams_of(), "joint")
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.auxiliary_heads.state_dict().items())


def test_an_interrupted_phase_goes_on_and_a_finished_one_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("deer_policies.training.trainer.SAVE_EVERY_S", 0.0)
    trainer = make_trainer(tmp_path)
    streams = streams_of()
    calls = iter(range(4))
    original = streams.next
    monkeypatch.setattr(streams, "next", lambda: original() if next(calls, None) is not None else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run(Phase(10, 1e-3, 2), streams, "first")
    resumed = make_trainer(tmp_path)
    assert resumed.steps_done == 4
    resumed.run(Phase(10, 1e-3, 2), streams_of(), "first")
    assert resumed.steps_done == 10
    again = make_trainer(tmp_path)
    again.run(Phase(10, 1e-3, 2), streams_of(), "first")
    assert again.steps_done == 10


def test_a_phase_begins_at_the_averaged_weights_of_the_one_before(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer.run(Phase(5, 1e-2, 0), streams_of(), "first")
    averaged = {name: value.clone() for name, value in trainer.average.state_dict().items()}
    assert any(not torch.equal(value, averaged[name]) for name, value in trainer.model.state_dict().items())
    monkeypatch.setattr(trainer, "_update", lambda *arguments: 0.0)
    trainer.run(Phase(1, 1e-2, 0), streams_of(), "second")
    assert all(torch.equal(value, averaged[name]) for name, value in trainer.model.state_dict().items())


def test_a_damaged_training_state_is_named(tmp_path):
    (tmp_path / "trainer.pt").write_bytes(b"nothing of use")
    with pytest.raises(CheckpointError, match=r"trainer\.pt can't be taken up"):
        make_trainer(tmp_path)


def test_calibration_has_a_value_for_each_exit_and_step():
    config = tiny_config()
    torch.manual_seed(0)
    model = DeerModel(config).eval()
    tokenizer, episodes = tiny_tokenizer(config), [episode(6), replace(episode(9), instructions=(TEXTS[1],))]
    clips = [encode(model, tokenizer, each) for each in episodes]
    found = calibrate(model, clips, ThresholdRule.fixed(0), "feature", {"episodes": 2})
    exits = len(config.language.exit_layers)
    assert found.values.shape == found.errors.shape == (exits, 15)
    assert (found.values > 0).all()
    assert (found.errors[:-1] > 0).all()
    assert (found.errors[-1] == 0).all()
    assert (found.criterion, found.source) == ("feature", {"episodes": 2})
    assert found.episodes.tolist() == [0] * 6 + [1] * 9
    lengths = [len(tokenizer.encode(text)) for text in TEXTS]
    assert found.tokens.tolist() == [lengths[0]] * 6 + [lengths[1]] * 9
    with pytest.raises(ConfigError, match="no episode"):
        calibrate(model, [], ThresholdRule.fixed(0), "action", {})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_recipes_can_be_read(path):
    recipe = load_recipe(path)
    assert recipe.rounds[0].expert_acts
    assert recipe.heads.heads_only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour: red", "unknown settings"),
        ("rounds: []", "a recipe needs rounds"),
        ("tasks: []", "name at least one of each"),
        ("optimisation: {samplings: [often]}", "'uniform' and 'segments'"),
        ("heads: {steps: 0, learning_rate: 1.0}", "steps >= 1"),
        ("rounds: [{phase: {stepz: 3}}]", r"rounds\[0\]\.phase has unknown settings \['stepz'\]"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path, change, message):
    text = (RECIPES / "smoke.yaml").read_text()
    key = change.split(":")[0]
    kept, skipping = [], False
    for line in text.splitlines():
        skipping = line.startswith(f"{key}:") or (skipping and line.startswith(" "))
        if not skipping:
            kept.append(line)
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*kept, change]))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_optimisation_refuses_an_impossible_average():
    with pytest.raises(ConfigError, match="ema_decay"):
        replace(Optimisation(), ema_decay=1.0)
