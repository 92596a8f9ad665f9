"""Draws the wordings of a batch so that a long one does not make all of them cost as much."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

LONG_SHARE = 0.1
"""Share of the batches that may have wordings of any length; all texts of a batch are padded to the longest."""
SHORT_CHARACTERS = 50
"""The other batches have none that are longer, where there are such."""


def drawn_wordings(choices: Sequence[tuple[str, ...]], rng: np.random.Generator) -> list[str]:
    """One wording for each entry of a batch, drawn from its choices."""
    long = rng.random() < LONG_SHARE
    allowed = [texts if long else _short(texts) for texts in choices]
    return [texts[rng.integers(len(texts))] for texts in allowed]


@cache
def _short(wordings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in wordings if len(text) <= SHORT_CHARACTERS) or wordings
