"""What training is made of: losses, exit sampling, augmentation, episode streams, language phase, recipes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.training.augmentation import jitter_clips, shift_clips
from deer_policies.training.calibration import calibrate, encode
from deer_policies.training.drawing import BatchDrawer
from deer_policies.training.episodes import EpisodeStreams, load_episode, save_episode
from deer_policies.training.exit_sampling import gather_exits, segment_exits, uniform_exits
from deer_policies.training.language_pretraining import pretrain_language
from deer_policies.training.losses import action_loss
from deer_policies.training.objective import head_losses, total_loss
from deer_policies.training.recipe import LanguagePhase, Optimisation, load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


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


def test_losses_of_all_heads_are_added_the_auxiliary_ones_by_their_factor():
    losses = {"uniform": torch.tensor(1.0), "segments": torch.tensor(2.0), "auxiliary_0": torch.tensor(4.0)}
    assert total_loss(losses, Optimisation()) == 7.0
    assert total_loss(losses, Optimisation(auxiliary_weight=0.25)) == 4.0


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
    assert torch.equal(plain.target, torch.from_numpy(windows.labels))
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


def test_half_precision_is_used_where_the_recipe_says(tiny, model):
    whole, half = (losses_of(tiny, model, precision=precision)[0] for precision in ("float32", "bfloat16"))
    assert all(half[name] != whole[name] for name in whole)
    assert all(half[name].item() == pytest.approx(whole[name].item(), rel=0.05) for name in whole)


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


def test_streams_play_episodes_from_start_to_end(tiny):
    first = tiny.episode(10)
    streams = EpisodeStreams([first], batch=1, window=4, rng=np.random.default_rng(0))
    windows = [streams.next() for _ in range(4)]
    assert [bool(part.starts[0]) for part in windows] == [True, False, False, True]
    assert [part.weight.sum() for part in windows] == [4, 4, 2, 4]
    assert np.array_equal(np.concatenate([part.labels[0] for part in windows[:3]])[:10], first.labels)
    assert np.array_equal(np.concatenate([part.images[0] for part in windows[:3]])[:10], first.images)


def test_streams_draw_tasks_evenly_however_many_episodes_each_has(tiny):
    episodes = [tiny.episode(4, "a")] * 19 + [tiny.episode(4, "b", seed=1)]
    streams = EpisodeStreams(episodes, batch=1, window=4, rng=np.random.default_rng(0))
    seen = [np.array_equal(streams.next().labels[0], episodes[-1].labels) for _ in range(200)]
    assert 70 < sum(seen) < 130


def test_streams_draw_a_wording_for_each_window(tiny):
    streams = EpisodeStreams([tiny.episode(40)], batch=1, window=4, rng=np.random.default_rng(0))
    assert {streams.next().instructions[0] for _ in range(10)} == set(tiny.texts)


def test_streams_can_cut_windows_anywhere_and_start_each_from_a_zero_state(tiny):
    long, short = tiny.episode(10), tiny.episode(3, "b", 1)
    streams = EpisodeStreams([long, short], 1, 4, np.random.default_rng(0), carry_state=False)
    firsts = set()
    for _ in range(100):
        windows = streams.next()
        assert windows.starts.all()
        source = long if windows.weight.sum() == 4 else short
        count = int(windows.weight.sum())
        firsts |= {
            (source.task, first)
            for first in range(len(source.labels))
            if np.array_equal(source.labels[first : first + count], windows.labels[0, :count])
        }
    assert firsts == {("b", 0), *(("open_drawer", first) for first in range(7))}


def test_streams_go_on_exactly_where_others_were(tiny):
    for carry_state in (True, False):
        episodes = [tiny.episode(10), tiny.episode(7, "b", 1)]
        streams = EpisodeStreams(episodes, 3, 4, np.random.default_rng(0), carry_state)
        for _ in range(5):
            streams.next()
        state = streams.state()
        others = EpisodeStreams(episodes, 3, 4, np.random.default_rng(99), carry_state)
        others.go_on_from(state)
        for _ in range(5):
            ours, theirs = streams.next(), others.next()
            assert np.array_equal(ours.images, theirs.images)
            assert ours.instructions == theirs.instructions
            assert np.array_equal(ours.starts, theirs.starts)


def test_no_episode_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match="collect demonstrations"):
        EpisodeStreams([], 1, 4, np.random.default_rng(0))


def test_episode_file_round_trip_and_damage(tiny, tmp_path):
    path = tmp_path / "a" / "episode.npz"
    original = tiny.episode(5)
    save_episode(path, original)
    read = load_episode(path, {"open_drawer": ("other words",)})
    assert np.array_equal(read.images, original.images)
    assert np.array_equal(read.labels, original.labels)
    assert read.instructions == ("other words",)
    assert [file.name for file in path.parent.iterdir()] == ["episode.npz"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"episode\.npz is not an episode file"):
        load_episode(path, {"open_drawer": ("x",)})


def test_calibration_has_a_value_for_each_exit_and_step(tiny):
    config = tiny.config()
    torch.manual_seed(0)
    model = DeerModel(config).eval()
    tokenizer, episodes = tiny.tokenizer(config), [tiny.episode(6), tiny.episode(9)]
    episodes = [replace(each, instructions=(text,)) for each, text in zip(episodes, tiny.texts, strict=True)]
    clips = [encode(model, tokenizer, each) for each in episodes]
    found = calibrate(model, clips, ThresholdRule.fixed(0), "feature", {"episodes": 2})
    exits = len(config.language.exit_layers)
    assert found.values.shape == found.errors.shape == (exits, 15)
    assert (found.values > 0).all()
    assert (found.errors[:-1] > 0).all()
    assert (found.errors[-1] == 0).all()
    assert (found.criterion, found.source) == ("feature", {"episodes": 2})
    assert found.episodes.tolist() == [0] * 6 + [1] * 9
    lengths = [len(tokenizer.encode(text)) for text in tiny.texts]
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
        ("optimisation: {samplings: [often]}", "'often'; allowed are uniform, segments"),
        ("optimisation: {samplings: []}", "'uniform' and 'segments'"),
        ("heads: {steps: 0, learning_rate: 1.0}", "steps >= 1"),
        ("heads: {steps: 1, learning_rate: 1.0, schedule: stairs}", "'stairs'; allowed are cosine, constant"),
        ("optimisation: {batch: 0}", "batch, window >= 1"),
        ("optimisation: {clip_norm: 0.0}", "clip_norm > 0"),
        ("optimisation: {weight_decay: -1.0}", "weight_decay >= 0"),
        ("calibration_max_steps: 0", "both must be at least 1"),
        ("calibration_episodes_per_task: 0", "both must be at least 1"),
        ("optimisation: {frozen: [arm]}", "'arm'; allowed are vision, resampler"),
        ("optimisation: {decayed: gates}", "'gates'; allowed are all, cross_attention"),
        ("optimisation: {precision: int8}", "'int8'; allowed are bfloat16, float32"),
        ("validation: {episodes_per_task: 1, every: 10, patience: 0}", "at least 1"),
        ("weights: other.safetensors", "both weights and a language phase"),
        ("validation: {often: true}", r"validation has unknown settings \['often'\]"),
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


def test_language_pretraining_tells_tasks_apart_and_leaves_the_rest_alone(tiny):
    config = tiny.config()
    torch.manual_seed(0)
    model = DeerModel(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wordings = {"open_drawer": ["open the drawer", "drawer open"], "close_drawer": ["close the drawer", "drawer close"]}
    corpus = [text for texts in wordings.values() for text in texts]
    tokenizer = Tokenizer.train(corpus, config.language.vocabulary, config.language.max_tokens)
    classifier = pretrain_language(model, tokenizer, wordings, LanguagePhase(60, 3e-3, batch=8), seed=1)
    assert classifier.accuracy(wordings) == (1.0, 1.0)
    swapped = {"open_drawer": wordings["close_drawer"], "close_drawer": wordings["open_drawer"]}
    assert classifier.accuracy(swapped) == (0.0, 0.0)
    changed_parts = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed_parts == {"embedding", "layers"}


def test_language_phase_is_checked():
    with pytest.raises(ConfigError, match="steps >= 1"):
        LanguagePhase(0)
