"""The paper's tables: which evaluations they ask for, that nothing is run twice, and what is written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

import paper.study
import paper.tables
import paper_tables
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import load, load_policy
from deer_policies.deer.conformal import conformal_rule
from deer_policies.deer.criteria import PREDICTED
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.predicted_distance import SIGNALS, PredictedDistance
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.thresholds import mean_cost
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget
from paper.cells import Scored
from paper.document import write_section
from paper.figure import figure
from paper.study import LeftOut, affordable_promise
from paper.times import timed

SEQUENCES = 6


@pytest.fixture
def run(make_checkpoint, fake_deer, tmp_path, monkeypatch):
    """Makes tables of a fake policy with fake evaluations; calibration and timing are faked as well."""
    policy = make_checkpoint(tmp_path / "policy.safetensors")
    calibrated, measured = [], []

    def calibration(path, plan, folder, workers):
        calibrated.append(plan)
        source = {"episodes": plan.episodes, "requested_llm_gmac": plan.average_llm_gmac}
        recorded = load(path).calibration
        fitted = None
        if plan.criterion == PREDICTED:
            signals = recorded.values[..., None].expand(-1, -1, len(SIGNALS))
            fitted = PredictedDistance.fitted(signals, recorded.values)
        return replace(recorded, criterion=plan.criterion, source=source, predicted=fitted)

    def times(study, budgets):
        measured.append(budgets)
        return {"always 2 layers": paper.tables.Timed(1.0, 2.0, 0.5, (0.4, 0.6), 0.25, 0.75)}

    monkeypatch.setattr(paper.study, "calibrate_in_simulation", calibration)
    monkeypatch.setattr(paper.tables, "_measured", times)
    monkeypatch.setattr(paper.tables, "PRECISIONS", ("float32", "bfloat16"))

    def make(*options):
        given = ["--policy", str(policy), "--sequences", str(SEQUENCES), "--shares", "0.6"]
        paper_tables.main(
            [*given, "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results.md"), *options], fake_deer
        )
        return (tmp_path / "results.md").read_text()

    make.calibrated, make.measured = calibrated, measured
    return make


@pytest.mark.slow
def test_all_tables_are_written_and_nothing_runs_twice(run, make_checkpoint, fake_deer, tmp_path):
    variants = tmp_path / "variants"
    make_checkpoint(variants / "one.safetensors", auxiliary_weight=0.0)
    make_checkpoint(variants / "two.safetensors", samplings=["uniform"])
    make_checkpoint(variants / "three.safetensors", samplings=["segments"], tasks=["open_drawer"])
    text = run("--variants", str(variants))
    assert "Left out" not in text
    assert text.count("### ") == len(paper_tables.TABLES)
    for words in ("always 8 layers", "feature", "conformal (within", "uniform only", "bfloat16", "| 1.00 ms |"):
        assert words in text
    assert "The recipe of 'segments only' differs in tasks too" in text
    assert text.count("differs in") == 1
    evaluations = [arguments for arguments in fake_deer.ran if arguments[0] == "eval"]
    folders = [arguments[-1] for arguments in evaluations]
    assert len(folders) == len(set(folders))
    ground = ["--sequences", str(SEQUENCES), "--seed", "3000"]
    assert all(arguments[3:7] == ground for arguments in evaluations)
    (tune,) = (arguments for arguments in fake_deer.ran if arguments[0] == "tune")
    assert tune[tune.index("--seed") + 1] == "5000"
    assert [plan.criterion for plan in run.calibrated] == ["feature", "time", "predicted"]
    assert {(plan.episodes, plan.seed, plan.average_llm_gmac) for plan in run.calibrated} == {(60, 900, 0.016)}
    fake_deer.ran.clear()
    assert run("--variants", str(variants)) == text
    # Only the search is asked again, which finds its own trials.
    assert [arguments[0] for arguments in fake_deer.ran] == ["tune"]
    assert (len(run.calibrated), len(run.measured)) == (3, 1)


def test_differences_are_paired_and_of_the_row_that_is_named(run, tmp_path):
    text = run("--only", "figure3")
    cells = {path.name: Scored.read(path) for path in (tmp_path / "out" / "cells").iterdir()}
    budget, everything = cells["budget-0.016"], cells["fixed-3"]
    keys = sorted(budget.solved)
    mean = np.mean([budget.solved[key] - everything.solved[key] for key in keys])
    (row,) = (line for line in text.splitlines() if line.startswith("| budget of 0.016 GMAC"))
    assert f"{mean:+.3f} [" in row
    gmac = CostModel(load(tmp_path / "policy.safetensors").model.config).llm_gmac(1)
    (beside,) = (line for line in text.splitlines() if line.startswith(f"| budget of {gmac:.4g} GMAC"))
    other = cells["fixed-1"].minus(cells[f"budget-{gmac:.5g}"])[0]
    assert f"{0.0 - other:+.3f} [" in beside.split("|")[4]
    with pytest.raises(ConfigError, match="different chains"):
        budget.minus(replace(everything, solved={"other": 1}))


def test_tables_without_checkpoints_are_left_out_and_others_stay(run):
    assert "Left out: there is no checkpoint trained without" in run("--only", "table3")
    text = run("--only", "table6")
    assert "Auxiliary heads" in text
    assert "Precision" in text
    assert text.count("<!-- begin") == 1
    # Tables of other sequences don't stand beside these.
    assert "Precision" not in run("--only", "table3", "--seed", "4")


def test_changed_weights_do_not_pass_for_finished(run, make_checkpoint, fake_deer, tmp_path):
    run("--only", "table6")
    count = len(fake_deer.ran)
    make_checkpoint(tmp_path / "policy.safetensors", name="noted otherwise")
    run("--only", "table6")
    assert len(fake_deer.ran) == count
    report = tmp_path / "out" / "cells" / "budget-0.016" / "report.json"
    report.write_text(json.dumps({**json.loads(report.read_text()), "weights_sha256": "0"}))
    run("--only", "table6")
    assert len(fake_deer.ran) == count + 1


def test_scores_are_not_of_what_thresholds_were_tuned_on(run):
    with pytest.raises(SystemExit, match="tuned on other sequences"):
        run("--seed", "5000")


def test_a_promise_is_chosen_by_what_it_costs(make_checkpoint, tmp_path):
    checkpoint = load(make_checkpoint(tmp_path / "policy.safetensors"))
    calibration, costs = checkpoint.calibration, CostModel(checkpoint.model.config)
    prices = calibration.costs(costs, 4)

    def cost(promise):
        return mean_cost(calibration.values, conformal_rule(calibration, promise).thresholds, prices)

    promise = affordable_promise(calibration, costs, 0.015, 0.1, 0.1)
    assert cost(promise) <= 0.015 < cost(replace(promise, epsilon=0.9 * promise.epsilon))
    with pytest.raises(LeftOut, match="fewer than the 44 episodes"):
        affordable_promise(replace(calibration, episodes=calibration.episodes // 2), costs, 0.015, 0.1, 0.1)
    with pytest.raises(LeftOut, match="cost as little"):
        affordable_promise(calibration, costs, 0.001, 0.1, 0.1)


def test_steps_are_timed_beside_each_other(make_checkpoint, tmp_path):
    policy = load_policy(make_checkpoint(tmp_path / "policy.safetensors"), peak=Budget())
    rules = {"first": ThresholdRule.fixed(0), "all": ThresholdRule.fixed(3)}
    found = timed(policy, rules, "all", [[example_observation(policy.info)] * 12] * 2)
    assert found["all"].ratio == 1.0
    assert (found["first"].llm_share, found["all"].llm_share) == (pytest.approx(0.25, abs=0.01), 1.0)
    assert found["first"].mean_ms < found["all"].mean_ms
    low, high = found["first"].ratio_interval
    assert low <= found["first"].ratio <= high < 1.0


def test_the_figure_shows_cost_to_the_right_and_length_upwards():
    def cell(share, length):
        interval = [length - 0.2, length + 0.2]
        report = {"llm_share": share, "average_length": length, "average_length_interval": interval}
        return Scored({**report, "per_position": dict.fromkeys("12345")}, {})

    svg = ElementTree.fromstring(figure([cell(0.6, 3.0), cell(0.3, 2.0)], [cell(0.25, 1.0), cell(1.0, 3.5)]))
    lines = [line.get("points") for line in svg.iter("{http://www.w3.org/2000/svg}polyline")]
    points = [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]
    assert [[x for x, _ in line] for line in points] == [[192.0, 384.0], [160.0, 640.0]]
    heights = [y for line in points for _, y in line]
    assert sorted(heights, reverse=True) == [heights[2], heights[0], heights[1], heights[3]]


def test_a_section_is_replaced_and_the_rest_of_the_document_stays(tmp_path):
    path = tmp_path / "document.md"
    path.write_text("# Before\n")
    write_section(path, "tables a", "first")
    write_section(path, "tables b", "second")
    path.write_text(path.read_text() + "\nAfter\n")
    write_section(path, "tables a", "third")
    assert re.sub(r"<!--.*?-->\n?", "", path.read_text()).split() == ["#", "Before", "third", "second", "After"]
