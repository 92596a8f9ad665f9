"""Every stage of the policy against numbers recorded from the official DeeR code (tiny random weights, float32)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from deer_policies.deer.official import official_name
from deer_policies.errors import CheckpointError
from deer_policies.parity.recording import Recording
from deer_policies.parity.replay import STAGES, Report, replay

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
        "n_hidden_states",
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
