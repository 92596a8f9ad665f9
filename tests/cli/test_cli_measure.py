"""Tests of `deer measure`, and of the budget that options ask for."""

from __future__ import annotations

import json

import pytest

from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import find, load
from deer_ros.cli.main import main


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    assert main(["measure", "--rounds", "1", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_tighter_peak_budget_loads_fewer_layers(capsys):
    limit = str(CostModel(load(find("deer-nano")).model.config).memory_gib(1))
    everything, less = measured(capsys), measured(capsys, "--peak-memory-gib", limit)
    assert (everything["layers_loaded"], less["layers_loaded"], less["layers"]) == (8, 4, 8)
    assert less["counted_mib"] <= float(limit) * 1024 < everything["counted_mib"]
    assert [time["exit_layer"] for time in less["exits"]] == [1, 3]
    assert less["resident_mib"] > less["before_mib"] > 0.0


def test_the_table_names_what_was_measured(capsys):
    assert main(["measure", "--rounds", "1", "--precision", "bfloat16"]) == 0
    out = capsys.readouterr().out
    assert "deer-nano, bfloat16, on cpu: 8 of 8 layers loaded" in out
    assert "memory of the process" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--peak-memory-gib", "1e-6"], "peak_memory_gib = 1e-06 can't be met: the first exit needs"),
        (["--latency-ms", "1e-6"], "latency_ms = 1e-06 can't be met: the first exit needs"),
        (["--latency-ms", "-1"], "latency_ms is -1.0; it must be a positive number"),
        (["--policy", "deer-mega"], "or a preset: deer-nano, openflamingo-3b, openflamingo-9b"),
    ],
)
def test_what_can_not_be_measured_is_told(capsys, options, said):
    assert main(["measure", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_fixed_depth_takes_no_budget(capsys, tmp_path):
    assert main(["eval", "--fixed-exit", "0", "--latency-ms", "50", "--out", str(tmp_path)]) == 2
    assert "--fixed-exit and --conformal stand for themselves" in capsys.readouterr().err
