"""The search for thresholds: on a made-up objective, resumed, and refused where its folder holds another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deer_policies.errors import ConfigError
from deer_ros.cli.tuning import PENALTY, REACH, Score, shares_from_stops, stops_from_shares, tune

AVERAGE = 2.0
START = (0.5, 0.5)
SETTINGS = {"seed": 7, "tasks": ["open_drawer"]}


class Objective:
    """Best at (0.65, 0.35); notes what it was asked, and can fail once."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[tuple[int, tuple[float, ...]]] = []
        self.fails_at = fails_at

    def __call__(self, number: int, stops: tuple[float, ...]) -> Score:
        self.asked.append((number, stops))
        if number == self.fails_at:
            raise KeyboardInterrupt
        return Score(1.0 - (stops[0] - 0.65) ** 2 - (stops[1] - 0.35) ** 2, AVERAGE)


def test_it_begins_with_the_solved_shares_and_gets_better(tmp_path: Path) -> None:
    objective = Objective()
    found = tune(START, objective, 15, AVERAGE, tmp_path, SETTINGS)
    assert objective.asked[0] == (0, START)
    assert len(found) == len(objective.asked) == 15
    assert all(abs(stop - 0.5) <= REACH for _, stops in objective.asked for stop in stops)
    assert found[0].stops == pytest.approx((0.65, 0.35), abs=0.05)
    best, first = found[0].score, next(trial for trial in found if trial.number == 0).score
    assert best.success - first.success > 0.03
    guided = [trial.score.success for trial in found if trial.number >= 10]
    assert min(guided) > 0.98


def test_an_interrupted_search_goes_on_with_the_trial_that_it_was_in(tmp_path: Path) -> None:
    broken = Objective(fails_at=2)
    with pytest.raises(KeyboardInterrupt):
        tune(START, broken, 4, AVERAGE, tmp_path, SETTINGS)
    again = Objective()
    found = tune(START, again, 4, AVERAGE, tmp_path, SETTINGS)
    assert again.asked[0] == broken.asked[-1]
    assert [number for number, _ in again.asked] == [2, 3]
    assert sorted(trial.number for trial in found) == [0, 1, 2, 3]
    assert tune(START, Objective(fails_at=4), 4, AVERAGE, tmp_path, SETTINGS) == found


def test_every_trial_is_in_the_journal_as_soon_as_it_is_done(tmp_path: Path) -> None:
    def lines() -> int:
        return (tmp_path / "journal.log").read_text().count("\n")

    written: list[int] = []

    def evaluate(number: int, stops: tuple[float, ...]) -> Score:
        written.append(lines())
        return Score(0.5, AVERAGE)

    tune(START, evaluate, 3, AVERAGE, tmp_path, SETTINGS)
    assert written == sorted(set(written))
    assert all(json.loads(line) for line in (tmp_path / "journal.log").read_text().splitlines())


def test_other_settings_are_refused(tmp_path: Path) -> None:
    tune(START, Objective(), 1, AVERAGE, tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match="other seed, tasks; give another folder"):
        tune(START, Objective(), 2, AVERAGE, tmp_path, {"seed": 8, "tasks": []})
    with pytest.raises(ConfigError, match="other average_llm_gmac"):
        tune(START, Objective(), 2, 2 * AVERAGE, tmp_path, SETTINGS)


def test_a_cost_above_the_budget_is_paid_for_with_success() -> None:
    assert Score(0.9, AVERAGE).objective(AVERAGE) == Score(0.9, 0.5 * AVERAGE).objective(AVERAGE) == 0.9
    assert Score(0.9, 1.1 * AVERAGE).objective(AVERAGE) == pytest.approx(0.9 - 0.1 * PENALTY)


@pytest.mark.parametrize("shares", [(0.4, 0.3, 0.2, 0.1), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
def test_shares_and_stops_say_the_same(shares: tuple[float, ...]) -> None:
    assert shares_from_stops(stops_from_shares(shares)) == pytest.approx(list(shares))
