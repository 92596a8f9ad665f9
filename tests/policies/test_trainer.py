"""The trainer: learns, freezes, resumes bit for bit, and stops early."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import changed
from deer_policies.deer.presets import openflamingo_3b, openflamingo_9b
from deer_policies.errors import CheckpointError
from deer_policies.training import trainer as trainer_module
from deer_policies.training.episodes import EpisodeStreams
from deer_policies.training.focus_readout import FocusReadout
from deer_policies.training.interruption import noted_interruption
from deer_policies.training.optimiser import make_optimiser, part_of, scheduled_rate
from deer_policies.training.parallel import Processes
from deer_policies.training.readouts import Readouts
from deer_policies.training.recipe import PARTS, Phase, Validation, load_recipe
from deer_policies.training.scene_readout import SceneReadout
from deer_policies.training.validation import held_out_loss
from tests.policies.training_runs import copied, differing, fixed_batches, records

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_training_learns_a_small_data_set(tiny, tmp_path):
    trainer = tiny.trainer(tmp_path)
    trainer.run(Phase(50, 3e-3, 5), tiny.streams(), "first")
    trainer.run(Phase(150, 3e-3, 5), tiny.streams(), "second")
    trajectory = [record["loss"] for record in records(tmp_path)]
    assert trajectory[-1] < 0.8 * trajectory[0]


def test_heads_only_leaves_everything_else_alone(tiny, tmp_path):
    trainer = tiny.trainer(tmp_path)
    before = copied(trainer.model)
    trainer.run(Phase(3, 1e-2, 0, heads_only=True), tiny.streams(), "heads")
    moved = differing(before, trainer.model.state_dict())
    assert moved
    assert all(name.startswith(("head.", "auxiliary_heads.")) for name in moved)


def readouts_for(tiny):
    episode, config = tiny.episode(10), tiny.config()
    torch.manual_seed(0)
    scene = SceneReadout(config, torch.from_numpy(episode.scene))
    return Readouts(scene, FocusReadout(config, torch.from_numpy(episode.focus)))


def test_readouts_are_trained_beside_the_model_and_teach_it_but_not_in_the_heads_phase(tiny, tmp_path):
    def joint(folder, **weights):
        trainer = tiny.trainer(tmp_path / folder, tiny.settings(**weights), readouts=readouts_for(tiny))
        trainer.run(Phase(3, 1e-2, 0), tiny.streams(), "joint")
        return trainer

    trainer = joint("with", scene_weight=1.0)
    assert {"scene", "focus"} < set(records(tmp_path / "with")[0]["losses"])
    trained, fresh = copied(trainer._readouts), readouts_for(tiny)
    assert differing(copied(fresh), trained) == {name for name, _ in fresh.named_parameters()}
    without, focused = joint("without"), joint("focused", focus_weight=1.0)
    taught = (differing(copied(without.model), other.model.state_dict()) for other in (trainer, focused))
    assert all({"vision.position_embedding", "resampler.latents"} < names for names in taught)
    trainer.run(Phase(3, 1e-2, 0, heads_only=True), tiny.streams(), "heads")
    assert not differing(trained, trainer._readouts.state_dict())
    assert not {"scene", "focus"} & set(records(tmp_path / "with")[-1]["losses"])


def test_without_auxiliary_loss_the_auxiliary_heads_stay_as_they_were(tiny, tmp_path):
    trainer = tiny.trainer(tmp_path, tiny.settings(auxiliary_weight=0.0))
    before = copied(trainer.model.auxiliary_heads)
    trainer.run(Phase(3, 1e-2, 0), tiny.streams(), "joint")
    assert not differing(before, trainer.model.auxiliary_heads.state_dict())


def test_every_parameter_belongs_to_a_part_and_frozen_parts_stay(tiny, tmp_path):
    trainer = tiny.trainer(tmp_path, tiny.settings(frozen=("vision", "decoder", "embedding")))
    assert {part_of(name) for name, _ in trainer.model.named_parameters()} == {*PARTS, "heads"}
    before = copied(trainer.model)
    trainer.run(Phase(2, 1e-2, 0), tiny.streams(), "joint")
    joint = copied(trainer.model)
    assert {part_of(name) for name in differing(before, joint)} == {"resampler", "cross_attention", "heads"}
    averaged = copied(trainer.average)
    trainer.run(Phase(2, 1e-2, 0, frozen=("resampler",)), tiny.streams(), "more")
    moved = {part_of(name) for name in differing(averaged, trainer.model.state_dict())}
    assert moved == {"cross_attention", "heads"}


def test_weight_decay_and_rates_act_where_the_recipe_says(tiny):
    model = DeerModel(tiny.config())
    names = {parameter: name for name, parameter in model.named_parameters()}

    def found(wanted, **changes):
        optimiser = make_optimiser(model, Phase(1, 1e-3, head_rate_scale=0.25), tiny.settings(**changes))
        return {names[p] for group in optimiser.param_groups for p in group["params"] if wanted(group)}

    matrices = {name for parameter, name in names.items() if parameter.ndim >= 2}
    assert found(lambda group: group["weight_decay"] == 0.01) == matrices
    decayed = found(lambda group: group["weight_decay"] == 0.01, decayed="cross_attention")
    assert decayed == {name for name in matrices if ".cross_attention." in name}
    assert not any(word in name for name in decayed for word in ("gate", "norm", "bias"))
    assert found(lambda group: group["scale"] == 0.25) == {name for name in names.values() if part_of(name) == "heads"}
    assert found(lambda group: True) == set(names.values())


def test_schedules():
    cosine, constant = Phase(100, 2.0, 10), Phase(100, 2.0, 10, schedule="constant")
    assert scheduled_rate(constant, 0) == pytest.approx(0.2)
    assert {scheduled_rate(constant, step) for step in range(9, 100)} == {2.0}
    assert scheduled_rate(cosine, 50) == pytest.approx(2.0 * 0.55)
    assert scheduled_rate(cosine, 99) == pytest.approx(0.2, abs=0.001)


def test_every_update_has_the_rate_of_its_step(tiny, tmp_path, monkeypatch):
    trainer, seen = tiny.trainer(tmp_path), []
    update, phase = trainer.update, Phase(6, 1e-2, 3, head_rate_scale=0.25)

    def noting(batch, optimiser):
        seen.append({group["scale"]: group["lr"] for group in optimiser.param_groups})
        return update(batch, optimiser)

    monkeypatch.setattr(trainer, "update", noting)
    trainer.run(phase, tiny.streams(), "joint")
    rates = [scheduled_rate(phase, step) for step in range(6)]
    assert seen == [{1.0: rate, 0.25: 0.25 * rate} for rate in rates]


def test_gradients_are_clipped_by_their_norm_over_all_parameters(tiny, tmp_path):
    trainer = tiny.trainer(tmp_path, tiny.settings(clip_norm=1e-3))
    found = trainer.update(fixed_batches(tiny)[0], make_optimiser(trainer.model, Phase(1, 1e-3), tiny.settings()))
    gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
    assert found["gradient_norm"] > 1e-2
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("steps_done", "kept"), [(0, 0.1), (1000, 0.9)])
def test_a_young_average_follows_quickly_and_an_old_one_as_the_recipe_says(tiny, tmp_path, steps_done, kept):
    trainer = tiny.trainer(tmp_path, tiny.settings(ema_decay=0.9))
    trainer.steps_done = steps_done
    before = copied(trainer.average)
    trainer.update(fixed_batches(tiny)[0], make_optimiser(trainer.model, Phase(1, 1e-2), tiny.settings()))
    after = trainer.average.state_dict()
    assert differing(before, after)
    for name, parameter in trainer.model.named_parameters():
        expected = kept * before[name] + (1.0 - kept) * parameter
        torch.testing.assert_close(after[name], expected, rtol=0.0, atol=1e-6)


def test_the_papers_recipe_trains_what_the_paper_trains(tiny, tmp_path):
    """OpenFlamingo-3B's own recipe and classes, at a size that fits here."""
    recipe = load_recipe(RECIPES / "openflamingo-3b.yaml")
    tiny_sizes = {
        "preprocess": {"image_size": 32},
        "vision": {"image_size": 32, "patch_size": 16, "dim": 16, "heads": 2, "layers": 1},
        "resampler": {"latents": 2, "layers": 1, "heads": 2, "head_dim": 8},
        "language": {"vocabulary": 300, "dim": 16, "heads": 2, "layers": 4, "cross_attention_head_dim": 8},
        "head": {"lstm_hidden": 16, "mlp_dims": [16]},
    }
    settings = replace(recipe.optimisation, batch=2, window=5, shift_px=(2, 1))
    trainer = tiny.trainer(tmp_path, settings, changed(changed(openflamingo_3b(), recipe.policy), tiny_sizes))
    streams = EpisodeStreams([tiny.episode(10, horizon=1)], 2, 5, np.random.default_rng(0), settings.carry_state)
    before = copied(trainer.model)
    trainer.run(replace(recipe.rounds[0].phase, steps=3, warmup_steps=1), streams, "joint")
    joint = copied(trainer.model)
    # With gates at 0, a pretrained model's, the gradient reaches the rest of the cross-attention once they have moved.
    assert {part_of(name) for name in differing(before, joint)} == {
        "resampler", "embedding", "cross_attention", "heads"
    }  # fmt: skip
    trainer.run(replace(recipe.heads, steps=3, warmup_steps=1), streams, "heads")
    assert {part_of(name) for name in differing(joint, trainer.model.state_dict())} == {"heads"}
    assert not differing(copied(trainer.model), trainer.average.state_dict())


@pytest.mark.parametrize(("make_config", "millions"), [(openflamingo_3b, 893.1), (openflamingo_9b, 1270.9)])
def test_the_papers_recipe_trains_as_many_parameters_as_the_official_code(make_config, millions):
    recipe = load_recipe(RECIPES / "openflamingo-3b.yaml")
    with torch.device("meta"):
        model = DeerModel(make_config())
    optimiser = make_optimiser(model, recipe.rounds[0].phase, recipe.optimisation)
    trained = sum(parameter.numel() for group in optimiser.param_groups for parameter in group["params"])
    assert trained / 1e6 == pytest.approx(millions, abs=0.05)


def varied(tiny):
    """Settings and a configuration with everything that is drawn at random."""
    return {
        "settings": tiny.settings(
            shift_px=(2, 1), brightness=0.2, word_dropout=0.3, scene_weight=0.5, focus_weight=0.5
        ),
        "config": tiny.config(head={"lstm_layers": 2, "lstm_dropout": 0.2, "mlp_dropout": 0.3}),
        "validation": Validation(1, 3, 100),
        "held_out": [tiny.episode(7, seed=5)],
        "readouts": readouts_for(tiny),
    }


def train_all(tiny, folder, drawn_by_others=0):
    trainer = tiny.trainer(folder, **varied(tiny))
    for name, phase in (("joint", Phase(9, 1e-2, 2)), ("heads", Phase(5, 1e-2, heads_only=True))):
        streams = EpisodeStreams([tiny.episode(10), tiny.episode(12, "b", 1)], 2, 5, np.random.default_rng(len(name)))
        torch.rand(drawn_by_others)
        trainer.run(phase, streams, name)
    return trainer


@pytest.mark.parametrize("stop_at", [3, 9, 12])
def test_ctrl_c_saves_the_state_and_the_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(trainer_module, "LOG_EVERY_STEPS", 2)
    whole = train_all(tiny, tmp_path / "whole")
    updates = iter(range(1, 100))
    original = EpisodeStreams.next

    def interrupted(streams):
        if next(updates) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(streams)

    monkeypatch.setattr(EpisodeStreams, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_all(tiny, tmp_path / "stopped")
    monkeypatch.setattr(EpisodeStreams, "next", original)
    assert tiny.trainer(tmp_path / "stopped", **varied(tiny)).steps_done == stop_at
    resumed = train_all(tiny, tmp_path / "stopped", drawn_by_others=5)
    assert records(tmp_path / "stopped") == records(tmp_path / "whole")
    assert not differing(copied(whole.model), resumed.model.state_dict())
    assert not differing(copied(whole.average), resumed.average.state_dict())
    assert not differing(copied(whole._readouts), resumed._readouts.state_dict())


def test_a_crash_loses_no_more_than_what_came_after_the_last_save(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOG_EVERY_STEPS", 1)
    whole = tiny.trainer(tmp_path / "whole")
    whole.run(Phase(10, 1e-3, 2), tiny.streams(), "first")
    trainer, streams = tiny.trainer(tmp_path / "crashed"), tiny.streams()
    updates, save = iter(range(10)), trainer._save
    monkeypatch.setattr(trainer, "_save_every_s", -1.0)
    monkeypatch.setattr(trainer, "_save", lambda *given: save(*given) if trainer.steps_done <= 4 else None)
    monkeypatch.setattr(streams, "next", lambda: tiny_next(streams) if next(updates) < 6 else 1 / 0)
    tiny_next = EpisodeStreams.next
    with pytest.raises(ZeroDivisionError):
        trainer.run(Phase(10, 1e-3, 2), streams, "first")
    assert len(records(tmp_path / "crashed")) == 6
    resumed = tiny.trainer(tmp_path / "crashed")
    assert resumed.steps_done == 4
    resumed.run(Phase(10, 1e-3, 2), tiny.streams(seed=7), "first")
    assert records(tmp_path / "crashed") == records(tmp_path / "whole")
    assert not differing(copied(whole.average), resumed.average.state_dict())


def test_a_finished_phase_is_skipped(tiny, tmp_path):
    tiny.trainer(tmp_path).run(Phase(3, 1e-3, 2), tiny.streams(), "first")
    again = tiny.trainer(tmp_path)
    again.run(Phase(3, 1e-3, 2), tiny.streams(), "first")
    assert again.steps_done == 3


def test_a_phase_begins_at_the_averaged_weights_of_the_one_before(tiny, tmp_path, monkeypatch):
    trainer = tiny.trainer(tmp_path)
    trainer.run(Phase(5, 1e-2, 0), tiny.streams(), "first")
    averaged = copied(trainer.average)
    assert differing(averaged, trainer.model.state_dict())
    monkeypatch.setattr(trainer, "update", lambda *arguments: {"loss": 0.0, "gradient_norm": 0.0})
    trainer.run(Phase(1, 1e-2, 0), tiny.streams(), "second")
    assert not differing(averaged, trainer.model.state_dict())


def test_a_damaged_training_state_is_named(tiny, tmp_path):
    (tmp_path / "trainer.pt").write_bytes(b"nothing of use")
    with pytest.raises(CheckpointError, match=r"trainer\.pt can't be taken up"):
        tiny.trainer(tmp_path)


def test_a_state_of_several_processes_is_refused_by_one(tiny, tmp_path):
    tiny.trainer(tmp_path).run(Phase(1, 1e-3), tiny.streams(), "first")
    content = torch.load(tmp_path / "trainer.pt", weights_only=True)
    torch.save(content | {"processes": content["processes"] * 3}, tmp_path / "trainer.pt")
    with pytest.raises(CheckpointError, match="a run of 3 processes"):
        tiny.trainer(tmp_path)


def test_early_stop_ends_a_phase_and_keeps_the_best_averaged_weights(tiny, tmp_path, monkeypatch):
    measured, seen = iter([3.0, 2.0, 2.5, 2.0, 1.0]), []

    def loss(model, *arguments):
        seen.append(copied(model))
        return next(measured)

    monkeypatch.setattr(trainer_module, "held_out_loss", loss)
    trainer = tiny.trainer(tmp_path, validation=Validation(1, every=3, patience=2), held_out=[tiny.episode(5)])
    trainer.run(Phase(100, 1e-2, 0), tiny.streams(), "first")
    assert trainer.steps_done == 12
    assert not differing(seen[1], trainer.average.state_dict())
    assert [record.get("validation_loss") for record in records(tmp_path)] == [3.0, 2.0, 2.5, 2.0, None]
    trainer.run(Phase(2, 1e-2, 0), tiny.streams(), "second")
    assert trainer.steps_done == 14


def test_held_out_loss_is_that_of_the_whole_episodes(tiny):
    """In windows with the state carried over it is the same as in one piece; and repeats give the same number."""
    config = tiny.config()
    torch.manual_seed(0)
    model, tokenizer = DeerModel(config).eval(), tiny.tokenizer(config)
    episodes = [tiny.episode(7), tiny.episode(11, seed=3)]
    # With one exit, no draw depends on how the episode is cut.
    model.exit_layers = model.exit_layers[-1:]
    model.auxiliary_heads = model.auxiliary_heads[-1:]

    def measured(window, carry_state=True):
        settings = tiny.settings(window=window, carry_state=carry_state, precision="float32")
        return held_out_loss(model, tokenizer, episodes, settings, 3, Processes())

    assert measured(4) == pytest.approx(measured(20), abs=1e-6)
    assert measured(4) == measured(4)
    assert measured(4, carry_state=False) != pytest.approx(measured(20), abs=1e-5)
    plain, known = measured(4), episodes[0].known.copy()
    known[2:, 1] = False
    hidden = np.where(known[..., None], episodes[0].labels, -episodes[0].labels)
    episodes[0] = replace(episodes[0], known=known)
    without = measured(4)
    assert without != pytest.approx(plain, abs=1e-5)
    episodes[0] = replace(episodes[0], labels=hidden)
    assert measured(4) == without


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruptions_are_noted_only_within_the_block(number):
    before = signal.getsignal(number)
    with noted_interruption() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), number)
        assert interrupted()
    assert signal.getsignal(number) == before
