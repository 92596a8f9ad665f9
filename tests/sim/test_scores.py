"""What results say, and the statistics behind it."""

from dataclasses import replace

import numpy as np
import pytest

from deer_sim import instructions
from deer_sim.results import ChainResult, SubtaskResult
from deer_sim.scores import summarise
from deer_sim.statistics import bootstrap_ratio, paired_difference, sign_flip_p, wilson_interval


def subtask(task, success, steps, exit_counts, cost):
    return SubtaskResult(task, "words", success, steps, exit_counts, cost, cost, 2.0, cost + 1.0, 4.0)


RESULTS = [
    ChainResult("b", 5, (subtask("open_drawer", False, 30, {"0": 30}, 0.5),)),
    ChainResult(
        "a", 5, (subtask("open_drawer", True, 10, {"1": 10}, 2.0), subtask("turn_on_led", False, 10, {"0": 10}, 0.5))
    ),
]


def test_the_figures_of_two_sequences():
    report = summarise(RESULTS)
    assert list(report)[:2] == ["average_length", "average_length_interval"]
    assert report["average_length"] == 0.5
    assert [row["rate"] for row in report["per_position"].values()] == [0.5, 0.0, 0.0, 0.0, 0.0]
    assert report["per_position"]["1"]["interval"] == (0.0, 1.0)
    assert report["per_task"]["open_drawer"]["rate"] == 0.5
    assert report["per_task"]["open_drawer"]["exit_counts"] == {"0": 30, "1": 10}
    assert report["per_task"]["turn_on_led"]["attempts"] == 1
    # 50 steps: 40 at a cost of 0.5 and 10 at 2.0, of 2.0 each; in all 1.0 more, of 4.0.
    assert report["llm_share"] == pytest.approx(0.8 / 2.0)
    assert report["total_share"] == pytest.approx(1.8 / 4.0)
    assert report["exit_counts"] == {"0": 40, "1": 10}


def test_costs_are_weighed_by_policy_steps_and_not_by_control_steps():
    # A chunk of three cut short after its first action is a policy step like any other.
    report = summarise(
        [ChainResult("a", 5, (subtask("led", True, 4, {"0": 2}, 1.0), subtask("door", False, 3, {"1": 1}, 2.0)))]
    )
    assert report["mean_llm_gmac"] == pytest.approx((2 * 1.0 + 1 * 2.0) / 3)
    assert report["asked_share"] == pytest.approx(3 / 7)
    assert report["all"]["mean_steps"] == 3.5


def test_the_order_of_results_changes_nothing():
    many = [ChainResult(f"{number}", 5, RESULTS[number % 2].subtasks) for number in range(20)]
    assert summarise(many) == summarise(many[::-1])


def test_without_reports_there_is_no_cost():
    report = summarise([ChainResult("a", 1, (SubtaskResult("led", "", True, 5, {}, 0.0, 0.0, 0.0, 0.0, 0.0),))])
    assert report["llm_share"] is report["total_share"] is report["mean_llm_gmac"] is None
    assert report["average_length"] == 1.0


def test_the_bootstrap_agrees_with_theory_and_counts_episodes():
    rng = np.random.default_rng(0)
    parts = (rng.random(400) < 0.3).astype(float)
    low, high = bootstrap_ratio(parts, np.ones(400), rng)
    spread = 1.96 * np.sqrt(parts.mean() * (1 - parts.mean()) / 400)
    assert low == pytest.approx(parts.mean() - spread, abs=0.01)
    assert high == pytest.approx(parts.mean() + spread, abs=0.01)
    # Ten attempts in each episode that always agree are no more evidence than one.
    assert bootstrap_ratio(10 * parts, np.full(400, 10.0), np.random.default_rng(1)) == pytest.approx(
        bootstrap_ratio(parts, np.ones(400), np.random.default_rng(1))
    )


def test_sign_flips_agree_with_counting():
    # Six differences of one sign: 2 of the 64 patterns are as extreme.
    assert sign_flip_p(np.ones(6), np.random.default_rng(0)) == pytest.approx(2 / 64, abs=0.005)
    assert sign_flip_p(np.array([1.0, -1.0, 0.0]), np.random.default_rng(0)) == 1.0
    assert sign_flip_p(np.zeros(5), np.random.default_rng(0)) == 1.0


def test_wilson_interval_matches_known_values():
    assert wilson_interval(20, 25) == pytest.approx((0.6087, 0.9114), abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_paired_difference_sees_a_difference_and_none():
    rng = np.random.default_rng(0)
    first = np.array([1, 1, 1, 0] * 25)
    assert paired_difference(first, first, rng) == (0.0, 0.0, 0.0)
    mean, low, high = paired_difference(first, np.zeros(100), rng)
    assert mean == 0.75
    assert 0.6 < low < 0.75 < high < 0.9
    with pytest.raises(ValueError, match="equal, non-empty"):
        paired_difference(first, first[:3], rng)


def test_success_by_group_of_wordings_where_there_are_several():
    written, spoken = (instructions.validation("open_drawer", group)[0] for group in ("written", "spoken"))
    said = [(written, True), (spoken, False), (spoken, True), ("some other words", False)]
    results = [
        ChainResult(f"{number}", 1, (replace(subtask("open_drawer", success, 10, {"0": 10}, 1.0), instruction=text),))
        for number, (text, success) in enumerate(said)
    ]
    table = summarise(results)["per_wording"]
    assert {group: (row["success"], row["attempts"]) for group, row in table.items()} == {
        "written": (1, 1),
        "spoken": (1, 2),
    }
    assert summarise(results[:1])["per_wording"] == {}
