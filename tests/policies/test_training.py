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
from deer_policies.training.focus_readout import FocusReadout
from deer_policies.training.language_pretraining import pretrain_language
from deer_policies.training.losses import action_loss
from deer_policies.training.objective import head_losses, total_loss
from deer_policies.training.readouts import Readouts
from deer_policies.training.recipe import Optimisation, PretrainingPhase, load_recipe
from deer_policies.training.scene_readout import SceneReadout

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


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
    assert torch.equal(jitter_clips(clips, 0.0, 0.0, torch.Generator()), clips)
    jittered = jitter_clips(clips, 0.3, 0.0, torch.Generator().manual_seed(0))
    assert jittered.dtype == torch.uint8
    assert len(jittered.unique()) > 1
    assert all(len(clip.unique()) == 1 for clip in jittered)


def test_a_tint_changes_the_channels_of_a_clip_apart_and_all_its_pictures_alike():
    clips = torch.full((4, 3, 2, 3, 8, 8), 100, dtype=torch.uint8)
    tinted = jitter_clips(clips, 0.0, 0.2, torch.Generator().manual_seed(0))
    assert all(len(channel.unique()) == 1 for clip in tinted for channel in clip.movedim(2, 0))
    assert all(len(clip.unique()) == 3 for clip in tinted)
    assert tinted.min() >= 80
    assert tinted.max() <= 120


def test_streams_play_episodes_from_start_to_end(tiny):
    first = tiny.episode(10)
    streams = EpisodeStreams([first], batch=1, window=4, rng=np.random.default_rng(0))
    windows = [streams.next() for _ in range(4)]
    assert [bool(part.starts[0]) for part in windows] == [True, False, False, True]
    assert [part.weight.any(-1).sum() for part in windows] == [4, 4, 2, 4]
    for name in ("labels", "images", "proprioception", "scene", "landmarks", "focus"):
        played = np.concatenate([getattr(part, name)[0] for part in windows[:3]])
        assert np.array_equal(played[:10], getattr(first, name))
        assert not played[10:].any()


def test_streams_leave_out_a_scene_that_some_of_the_episodes_do_not_tell(tiny):
    told, recorded = tiny.episode(4), tiny.episode(4, "b", 1)
    nothing = {name: getattr(recorded, name)[:, :0] for name in ("scene", "focus")}
    recorded = replace(recorded, **nothing, landmarks=recorded.landmarks[:, :, :0])
    for episodes in ([told, recorded], [recorded, told]):
        streams = EpisodeStreams(episodes, 8, 4, np.random.default_rng(0))
        windows = streams.next()
        assert len({images.tobytes() for images in windows.images}) == 2
        assert (windows.scene.shape, windows.landmarks.shape) == ((8, 4, 0), (8, 4, 2, 0, 3))
        assert windows.focus.shape == (8, 4, 0)


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
        count = int(windows.weight.any(-1).sum())
        source = long if count == 4 else short
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
    for name in ("images", "proprioception", "labels", "known", "scene", "landmarks", "focus"):
        assert np.array_equal(getattr(read, name), getattr(original, name))
    assert isinstance(read.images, np.memmap)
    assert (read.task, read.instructions) == ("open_drawer", ("other words",))
    assert sorted(file.name for file in path.parent.iterdir()) == ["episode.npy", "episode.npz"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"episode\.npz is not an episode file"):
        load_episode(path, {"open_drawer": ("x",)})
    save_episode(path, original)
    path.with_suffix(".npy").unlink()
    with pytest.raises(ConfigError, match=r"episode\.npz is not an episode file"):
        load_episode(path, {"open_drawer": ("x",)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((5, 7), np.float32)}, "they must be"),
        ({"labels": np.zeros((5, 3, 7), np.float32)}, "they must be"),
        ({"known": np.ones((4, 2), bool), "labels": np.zeros((4, 2, 7), np.float32)}, "make them equal"),
        ({"scene": np.zeros((4, 3), np.float32)}, "make them equal"),
        ({"landmarks": np.zeros((6, 2, 4, 3), np.float32)}, "make them equal"),
        ({"focus": np.zeros((4, 2), np.float32)}, "make them equal"),
        ({"images": np.zeros((5, 2, 3, 32, 32), np.float32)}, "uint8"),
        ({"instructions": ()}, "at least one wording"),
    ],
)
def test_an_episode_whose_parts_do_not_fit_is_refused(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(tiny.episode(5), **changes)


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


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_committed_recipes_can_be_read(path):
    recipe = load_recipe(path)
    assert recipe.rounds[0].expert_acts
    assert recipe.heads.heads_only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour: red", "unknown settings"),
        ("rounds: []", "a recipe needs rounds"),
        ("scenes: []", "needs scenes"),
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
        ("vision: {steps: 5, kind: fast}", r"vision has unknown settings \['kind'\]"),
        ("vision: {steps: 5}", "shift_px"),
        ("optimisation: {scene_weight: 0.1}", "shift_px"),
        ("optimisation: {focus_weight: 0.1}", "shift_px"),
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


def test_a_recipe_changes_single_settings_of_its_base(tmp_path):
    smoke = load_recipe(RECIPES / "smoke.yaml")
    (tmp_path / "base.yaml").write_text((RECIPES / "smoke.yaml").read_text())
    (tmp_path / "middle.yaml").write_text("base: base.yaml\nname: middle\nscenes: [B]\noptimisation: {window: 3}\n")
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "own.yaml"
    path.write_text("base: ../middle.yaml\nname: own\noptimisation: {auxiliary_weight: 0.0}\n")
    optimisation = replace(smoke.optimisation, window=3, auxiliary_weight=0.0)
    assert load_recipe(path) == replace(smoke, name="own", scenes=("B",), optimisation=optimisation)


def test_ablations_differ_from_their_base_in_what_they_are_named_after():
    base = load_recipe(RECIPES / "deer-nano.yaml")
    changes = {
        "no-auxiliary": {"auxiliary_weight": 0.0},
        "uniform": {"samplings": ("uniform",)},
        "segments": {"samplings": ("segments",)},
    }
    for name, change in changes.items():
        optimisation = replace(base.optimisation, **change)
        expected = replace(base, name=f"deer-nano-{name}", optimisation=optimisation)
        assert load_recipe(RECIPES / "ablations" / f"{name}.yaml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: other.yaml", r"own\.yaml has no name"),
        ("{base: other.yaml, name: own}", "its own base"),
        ("{base: nowhere.yaml, name: own}", r"cannot read the recipe .*nowhere\.yaml"),
    ],
)
def test_a_base_that_can_not_be_used_is_told(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("{base: own.yaml, name: other}")
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "own.yaml")


def test_weights_and_a_vision_phase_exclude_each_other():
    recipe = load_recipe(RECIPES / "deer-nano.yaml")
    with pytest.raises(ConfigError, match="both weights and a vision phase"):
        replace(recipe, language=None, weights="other.safetensors")
    assert recipe.tasks == ()
    assert isinstance(recipe.vision, PretrainingPhase)


def test_optimisation_refuses_an_impossible_average():
    with pytest.raises(ConfigError, match="ema_decay"):
        replace(Optimisation(), ema_decay=1.0)


def test_language_pretraining_tells_tasks_apart_and_leaves_the_rest_alone(tiny):
    config = tiny.config()
    torch.manual_seed(0)
    model = DeerModel(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wordings = {"open_drawer": ("open the drawer", "drawer open"), "close_drawer": ("close the drawer", "drawer close")}
    corpus = [text for texts in wordings.values() for text in texts]
    tokenizer = Tokenizer.train(corpus, config.language.vocabulary, config.language.max_tokens)
    classifier = pretrain_language(model, tokenizer, wordings, PretrainingPhase(60, 3e-3, batch=8), seed=1)
    assert classifier.accuracy(wordings) == (1.0, 1.0)
    swapped = {"open_drawer": wordings["close_drawer"], "close_drawer": wordings["open_drawer"]}
    assert classifier.accuracy(swapped) == (0.0, 0.0)
    changed_parts = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed_parts == {"embedding", "layers"}


def test_language_phase_is_checked():
    with pytest.raises(ConfigError, match="steps >= 1"):
        PretrainingPhase(0)
