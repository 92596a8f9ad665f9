"""Texts outside the skills: enough of them, none a wording of a task, and those that judge kept apart."""

import pytest

from deer_policies.errors import ConfigError
from deer_sim import instructions, outside
from deer_sim.tasks import TASKS


def test_what_judges_is_never_trained_on() -> None:
    judging = {text for group in outside.GROUPS for text in outside.validation(group)}
    assert all(len(set(outside.validation(group))) >= 100 for group in outside.GROUPS)
    assert judging.isdisjoint(outside.training())
    assert judging.isdisjoint(outside.tuning())
    with pytest.raises(ConfigError, match="allowed: near, far"):
        outside.validation("middle")


def test_the_threshold_is_chosen_on_things_that_training_has_not() -> None:
    trained = {word for text in outside.training() for word in text.split()}
    tuned = [text for text in outside.tuning() if not set(text.split()) <= trained]
    assert len(tuned) > 0.3 * len(outside.tuning())
    assert set(outside.training()).isdisjoint(outside.tuning())


def test_no_text_outside_is_a_wording_of_a_task() -> None:
    inside = {text for task in TASKS for text in instructions.plain_training(task)}
    inside |= {text for task in TASKS for text in instructions.validation(task, instructions.EVERY)}
    groups = [outside.training(), outside.tuning(), *(outside.validation(group) for group in outside.GROUPS)]
    assert [text for texts in groups for text in texts if text in inside] == []


def test_texts_are_the_same_each_time() -> None:
    before = outside.tuning()
    outside.tuning.cache_clear()
    assert outside.tuning() == before
