"""Wordings of a batch: long ones come in their share of the batches, and then in the share that they have."""

import numpy as np
import pytest

from deer_policies.training.wording_draws import LONG_SHARE, SHORT_CHARACTERS, drawn_wordings

SHORT, ALSO_SHORT = "open the drawer", "x" * SHORT_CHARACTERS
LONG = "x" * (SHORT_CHARACTERS + 1)


def test_long_wordings_come_only_in_their_share_of_the_batches():
    rng = np.random.default_rng(0)
    batches = [drawn_wordings([(SHORT, LONG)] * 16, rng) for _ in range(400)]
    with_long = [batch for batch in batches if LONG in batch]
    assert len(with_long) / 400 == pytest.approx(LONG_SHARE, abs=0.07)
    assert np.mean([batch.count(LONG) / 16 for batch in with_long]) == pytest.approx(0.5, abs=0.05)


def test_all_short_wordings_are_drawn_and_each_for_its_own_entry():
    rng = np.random.default_rng(1)
    seen = {tuple(drawn_wordings([(SHORT, ALSO_SHORT), ("push",)], rng)) for _ in range(50)}
    assert seen == {(SHORT, "push"), (ALSO_SHORT, "push")}


def test_where_there_is_none_but_long_ones_they_are_drawn():
    rng = np.random.default_rng(2)
    assert all(drawn_wordings([(LONG,)], rng) == [LONG] for _ in range(20))
