"""Tests of the film frames: what a step did is seen where a person looks for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ExitReport
from deer_sim.film import (
    BACKGROUND,
    CAMERAS_TOP,
    EXIT_COLOURS,
    FAILED,
    HEIGHT,
    LADDER,
    MARGIN,
    SOLVED,
    STATIC_SIZE,
    STRIP,
    WIDTH,
    FilmComposer,
    Shot,
    exit_colour,
    format_gmac,
)

LAYERS = (1, 3, 5, 7)


def make_shot(exit_index: int = 0, **changes: object) -> Shot:
    share = (exit_index + 1) / len(LAYERS)
    report = ExitReport(exit_index, LAYERS[exit_index], (0.1,), (0.2,), 0.04 * share, 0.06, 0.04, 0.08, 5.0)
    shot = Shot(
        rgb_static=np.full((200, 200, 3), (200, 10, 10), np.uint8),
        rgb_gripper=np.full((84, 84, 3), (10, 10, 200), np.uint8),
        instruction="open the drawer",
        subtask=0,
        step=3,
        report=report,
        budget_gmac=0.02,
    )
    return replace(shot, **changes)  # type: ignore[arg-type]


def shows(region: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((region == np.array(colour, np.uint8)).all(axis=-1).any())


def strip_of(frame: np.ndarray) -> np.ndarray:
    left, top, right, bottom = STRIP
    return frame[top:bottom, left:right]


def ladder_of(frame: np.ndarray) -> np.ndarray:
    left, top, right, bottom = LADDER
    return frame[top : bottom - 132, left:right]


def test_frame_shows_both_cameras() -> None:
    frame = FilmComposer(LAYERS, (None,), "title", 0.04).frame(make_shot())
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame.dtype == np.uint8
    middle = CAMERAS_TOP + 200
    assert frame[middle, MARGIN + 200].tolist() == [200, 10, 10]
    assert frame[middle, MARGIN + STATIC_SIZE + 200].tolist() == [10, 10, 200]


@pytest.mark.parametrize("taken", range(4))
def test_only_the_taken_rung_is_lit(taken: int) -> None:
    ladder = ladder_of(FilmComposer(LAYERS, (None,), "title", 0.04).frame(make_shot(taken)))
    lit = [shows(ladder, exit_colour(index, len(LAYERS))) for index in range(len(LAYERS))]
    assert lit == [index == taken for index in range(len(LAYERS))]


def test_strip_grows_with_each_step_and_higher_for_deeper_exits() -> None:
    composer = FilmComposer(LAYERS, (None,), "title", 0.04)
    composer.frame(make_shot(0))
    frame = composer.frame(make_shot(3))
    strip = strip_of(frame)
    lit = (strip == np.array(exit_colour(3, 4), np.uint8)).all(axis=-1)
    dim = (strip == np.array(exit_colour(0, 4), np.uint8)).all(axis=-1)
    assert lit[:, -3].sum() == strip.shape[0]
    assert dim[:, -8].sum() == pytest.approx(strip.shape[0] / 4, abs=1)
    assert not shows(strip[:, :-10], exit_colour(0, 4))


def test_a_step_without_a_question_costs_nothing() -> None:
    """The lower bar of the ladder's panel is the mean: a deep exit once and a shallow one, held for three steps."""

    def mean_bar(*shots: Shot) -> np.ndarray:
        composer = FilmComposer(LAYERS, (None,), "title", 0.04)
        frame = [composer.frame(shot) for shot in shots][-1]
        return frame[LADDER[3] - 60 : LADDER[3], LADDER[0] : LADDER[2]]

    held = make_shot(0, asked=False)
    assert np.array_equal(mean_bar(make_shot(3), make_shot(0), held, held), mean_bar(make_shot(3), make_shot(0)))
    assert not np.array_equal(mean_bar(make_shot(3), make_shot(0), make_shot(0)), mean_bar(make_shot(3), make_shot(0)))


def test_budget_change_is_marked_where_it_happens() -> None:
    _, top, right, _ = STRIP
    above = slice(top - 9, top)

    def marked(*budgets: float | None) -> bool:
        composer = FilmComposer(LAYERS, (None,), "title", 0.04)
        for budget in budgets:
            frame = composer.frame(make_shot(0, budget_gmac=budget))
        return bool((frame[above, right - 12 : right - 4] != np.array(BACKGROUND, np.uint8)).any())

    assert marked(0.04, 0.02)
    assert marked(None, 0.02)
    assert not marked(0.02, 0.02)


def test_outcomes_show_once_the_film_has_passed_them() -> None:
    composer = FilmComposer(LAYERS, (True, False, None), "title", 0.04)
    first = composer.frame(make_shot(subtask=0))[20:40, 190:]
    last = composer.frame(make_shot(subtask=2))[20:40, 190:]
    assert not shows(first, SOLVED)
    assert not shows(first, FAILED)
    assert shows(last, SOLVED)
    assert shows(last, FAILED)


def test_long_instruction_stays_inside_the_frame() -> None:
    frame = FilmComposer(LAYERS, (None,), "title", 0.04).frame(make_shot(instruction="put it there " * 40))
    assert (frame[45:95, WIDTH - MARGIN + 2 :] == np.array(BACKGROUND, np.uint8)).all()
    assert (frame[45:95, WIDTH - 200 : WIDTH - MARGIN] != np.array(BACKGROUND, np.uint8)).any()


def test_card_carries_its_text() -> None:
    composer = FilmComposer(LAYERS, (None,), "title", 0.04)
    assert (composer.card("4 of 5 solved", ["seed 0"]) != composer.card("", [])).any()


def test_exit_colours_reach_from_cheap_to_dear() -> None:
    assert exit_colour(0, 4) == EXIT_COLOURS[0]
    assert exit_colour(3, 4) == EXIT_COLOURS[-1]
    assert len({exit_colour(index, 12) for index in range(12)}) == 12
    assert exit_colour(0, 1) == EXIT_COLOURS[0]


@pytest.mark.parametrize(("value", "text"), [(0.0483, "48.3 MMAC"), (1.25, "1.25 GMAC"), (31.2, "31.2 GMAC")])
def test_costs_are_given_in_readable_units(value: float, text: str) -> None:
    assert format_gmac(value) == text


def test_unknown_exit_is_refused() -> None:
    with pytest.raises(ConfigError, match="exit 3 is not one of the 2 exits"):
        FilmComposer((1, 3), (None,), "title", 0.04).frame(make_shot(3))
    with pytest.raises(ConfigError, match="at least one exit"):
        FilmComposer((), (None,), "title", 0.04)
