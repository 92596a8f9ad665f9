"""Every stage of the policy against numbers recorded from the official DeeR code (tiny random weights, float32)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.config import changed
from deer_policies.deer.official import official_name
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError
from deer_policies.parity.comparison import TOLERANCE
from deer_policies.parity.recording import Recording
from deer_policies.parity.replay import STAGES, Report, replay
from deer_policies.training.objective import Batch
from deer_policies.training.optimiser import make_optimiser
from deer_policies.training.recipe import Optimisation, Phase
from deer_policies.training.trainer import Trainer

GOLDEN = Path(__file__).resolve().parents[3] / "shared/golden/deer"
LAYOUTS = sorted(path.name for path in GOLDEN.glob("*") if (path / "io.npz").exists()) if GOLDEN.exists() else []

pytestmark = pytest.mark.skipif(not LAYOUTS, reason=f"recorded numbers are not on this machine ({GOLDEN})")


@pytest.fixture(scope="module", params=LAYOUTS)
def golden(request) -> Recording:
    return Recording(GOLDEN / request.param)


@pytest.fixture(scope="module")
def report(golden) -> Report:
    return replay(golden.folder)


@pytest.mark.parametrize("stage", STAGES)
def test_stage(report, stage):
    result = next(result for result in report.results if result.name == stage)
    assert result.recorded
    assert result.holds, result


def test_what_is_recorded_and_not_replayed(report):
    """Left out: notes, statistics and state leaks of the recording itself, and the weights after one training step."""
    assert report.not_replayed == (
        "dyn/history_memory_len",
        "dyn_max4/history_memory_len",
        "dyn_never/history_memory_len",
        "dyn_stage3/history_memory_len",
        "grad_norm_note",
        "official_step_delta/...",
        "pad_check/fraction_of_dims_changed",
        "pad_check/pooled_max_diff",
        "pad_check/valid_rows_max_diff",
        "params_after_step_sample/extra_exit.actions.mlp.N.weight",
        "params_after_step_sample/lm_head.actions.mlp.N.weight",
        "params_after_step_sample/perceiver.latents",
        "solver/N/log",
        "token_ids/...",
        "train_eval_mode/seed",
    )


def test_names_of_training_checkpoints_lead_to_the_same_weights(golden):
    """They carry a prefix, and the frozen decoder and the cross-attention under second names."""
    patterns = json.loads((golden.folder / "ckpt_keys.json").read_text())["saved_patterns"]
    exits = len(golden.config.language.exit_layers)

    def numbered(pattern: str) -> list[str]:
        """The pattern's names: every N counts from 0, as far as any of the lists goes."""
        names = [pattern]
        while any(".N" in name for name in names):
            names = [name.replace(".N", f".{number}", 1) for name in names for number in range(11)]
        return names

    ours = set(golden.model.state_dict())
    for pattern in patterns:
        found = set()
        for name in numbered(pattern):
            with contextlib.suppress(CheckpointError):
                found.add(official_name(name, exits))
        assert found & ours, pattern
    with pytest.raises(CheckpointError, match="something"):
        official_name("module.perceiver.something", exits)


def test_official_names_give_every_weight(golden):
    exits = len(golden.config.language.exit_layers)
    ours = {official_name(key, exits) for key in golden.weights}
    assert set(golden.model.state_dict()) <= ours


def test_pooling_ignores_padding_unless_asked_to_copy_the_official_code(golden):
    recorded, mask = golden.tensor("hidden_b3_padded"), golden.tensor("mask3").bool()
    for hidden in recorded:
        assert torch.equal(golden.model.pooled(hidden, mask), hidden.amax(1))
        for row, length in enumerate(mask.sum(1)):
            assert torch.equal(golden.default_model.pooled(hidden, mask)[row], hidden[row, :length].amax(0))
    masked = torch.stack([golden.default_model.pooled(hidden, mask) for hidden in recorded])
    changed_by_padding = recorded.amax(2) != masked
    assert changed_by_padding.float().mean().item() > 0.01


def recorded_batch(golden: Recording) -> Batch:
    """The recorded batch with the exits that the official code drew."""
    boundary = golden.setting("train_eval_mode/prev_len")
    drawn = golden.tensor("train_eval_mode/segment_exit_index")
    segments = torch.where(torch.arange(12) < boundary, drawn[:, :1], drawn[:, 1:])
    actions = golden.tensor("train_batch/actions")
    return Batch(
        images=torch.stack([golden.tensor("train_batch/rgb"), golden.tensor("train_batch/grip")], dim=2),
        token_ids=golden.tensor("train_batch/ids"),
        token_mask=golden.tensor("train_batch/mask").bool(),
        proprioception=torch.zeros(2, 12, 15),
        target=torch.cat([actions[..., :6], actions[..., 6:].sign()], dim=-1)[:, :, None],
        weight=torch.ones(2, 12, 1),
        scene=torch.zeros(2, 12, 0),
        landmarks=torch.zeros(2, 12, 2, 0, 3),
        focus=torch.zeros(2, 12, 0),
        starts=torch.ones(2, dtype=torch.bool),
        exits={"uniform": golden.tensor("train_eval_mode/uniform_exit_index"), "segments": segments},
    )


def recorded_parameters(golden: Recording, prefix: str) -> dict[str, torch.Tensor]:
    """Recorded values of parameters by our names."""
    exits = len(golden.exit_layers)
    with np.load(golden.folder / "io.npz") as arrays:
        keys = [key for key in arrays.files if key.startswith(prefix)]
    return {str(official_name(key.removeprefix(prefix), exits)): golden.tensor(key) for key in keys}


def test_one_training_step(golden, tmp_path):
    """The trainer's own update on the recorded batch: every head's loss, their sum, and what the step moves.

    Recorded with AdamW at 1e-3 without weight decay, and without dropout.
    """
    settings = Optimisation(weight_decay=0.0, frozen=("vision", "decoder"), ema_decay=0.0, precision="float32")
    with torch.inference_mode(False):
        model = DeerModel(changed(golden.config, {"head": {"lstm_dropout": 0.0, "mlp_dropout": 0.0}}))
        model.load_state_dict({name: value.clone() for name, value in golden.model.state_dict().items()})
        tokenizer = Tokenizer.train(["none"], golden.config.language.vocabulary + 300, 32)
        trainer = Trainer(model, tokenizer, settings, tmp_path, seed=0)
        optimiser = make_optimiser(trainer.model.train(), Phase(1, 1e-3, 0, schedule="constant"), settings)
        losses = trainer.update(recorded_batch(golden), optimiser)
    recorded = golden.array("train_losses/huber") + 0.01 * golden.array("train_losses/bce")
    names = [*(f"auxiliary_{k}" for k in range(len(golden.exit_layers))), "uniform", "segments"]
    assert [losses[name] for name in names] == pytest.approx(recorded.tolist(), abs=TOLERANCE)
    assert losses["loss"] == pytest.approx(golden.setting("official_step_loss"), abs=TOLERANCE)

    before, after = golden.model.state_dict(), trainer.model.state_dict()
    largest = {name: (after[name] - before[name]).abs().max().item() for name in before}
    moved = recorded_parameters(golden, "official_step_delta/")
    assert {name for name, change in largest.items() if change} == set(moved)
    for name, change in moved.items():
        assert largest[name] == pytest.approx(change.item(), abs=1e-7), name
    whole = recorded_parameters(golden, "params_after_step_sample/")
    assert whole
    for name, value in whole.items():
        # Adam divides a gradient by its size; where that is no more than its epsilon of 1e-8, rounding shows.
        np.testing.assert_allclose(after[name], value, atol=2e-5)
