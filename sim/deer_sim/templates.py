"""Templates that stand for many sentences: `(a|b|)` is one of the alternatives, `<name>` one of those of that name."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

_CHOICE = re.compile(r"\(([^()]*)\)|<(\w+)>")


def choices(template: str, words: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """A template as a row of choices.

    Args:
        template: see the module.
        words: alternatives by name.
    """
    parts: list[tuple[str, ...]] = []
    end = 0
    for match in _CHOICE.finditer(template):
        alternatives, name = match.groups()
        parts += [(template[end : match.start()],), tuple(alternatives.split("|") if name is None else words[name])]
        end = match.end()
    return (*parts, (template[end:],))


def expanded(template: str, words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every sentence that a template stands for, with single spaces; see `choices`."""
    for choice in product(*choices(template, words)):
        yield " ".join("".join(choice).split())


class Phrases:
    """Draws sentences of templates, whose alternatives may hold templates in turn."""

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        """Args:
        words: alternatives by name.
        """
        self._words = words
        self._choices: dict[str, tuple[tuple[str, ...], ...]] = {}

    def draw(self, template: str, rng: random.Random) -> str:
        """One of the sentences that a template stands for."""
        if template not in self._choices:
            self._choices[template] = choices(template, self._words)
        parts = [options[0] if len(options) == 1 else rng.choice(options) for options in self._choices[template]]
        return "".join(self.draw(part, rng) if "<" in part or "(" in part else part for part in parts)
