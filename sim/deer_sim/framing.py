"""Puts what people say around a request to training sentences: hesitations and corrections, or context and politeness.

The material is `wordings/frames.yaml`. A correction names something wrong first, so that the last word counts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from deer_sim.templates import Phrases

_CONFUSED = (
    ("red", "blue", "pink"),
    ("left", "right"),
    ("leftwards", "rightwards"),
    ("clockwise", "counterclockwise"),
    ("drawer", "cabinet", "table"),
    ("open", "close"),
    ("on", "off"),
    ("green", "yellow"),
    ("bulb", "led"),
    ("up", "down"),
)
"""What a speaker may say by mistake instead of another word in the same row."""
_THINGS = {
    "drawer": ("drawer",),
    "cabinet door": ("cabinet", "door", "slider", "panel", "shelf"),
    "yellow light": ("yellow", "bulb", "lightbulb", "lamp", "light"),
    "green lamp": ("green", "led", "lamp", "light"),
    "other blocks": ("other", "another", "block", "blocks", "cube", "cubes", "tower"),
    "red block": ("red",),
    "blue one": ("blue",),
    "pink cube": ("pink",),
    **{name: (name,) for name in ("chair", "window", "clock", "radio", "shelf", "camera", "table", "cable")},
}
"""What a speaker may set aside, and the words by which a request would be about that very thing."""
_REMARKS = (("reasons",), ("greetings",), ("greetings", "reasons"), ("openers", "reasons"), ("reasons", "after"))


def orders(requests: Sequence[str]) -> list[str]:
    """Those that are bare orders, such as 'open the drawer'."""
    return [text for text in requests if _is_order(text)]


def _is_order(text: str) -> bool:
    first, *rest = text.split()
    return (
        first not in _material()["no_orders"]
        and not first.endswith("ing")
        and len(rest) > 1
        and rest[0] not in ("is", "time")
    )


@cache
def _material() -> dict[str, Any]:
    import yaml

    path = Path(__file__).with_name("wordings") / "frames.yaml"
    material: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return material


@cache
def _phrases() -> Phrases:
    return Phrases(_material()["words"])


def _tidy(text: str) -> str:
    """Single spaces, none in front of a mark, and no mark twice."""
    text = re.sub(r"\s+(?=[,.!;:'])", "", " ".join(text.split()))
    return re.sub(r"[,.!;:]+(?=[,.!;:])", "", text)


def remark(rng: random.Random) -> str:
    """What is said around requests, with no request in it."""
    said = [_phrases().draw(rng.choice(_material()[kind]), rng) for kind in rng.choice(_REMARKS)]
    return _tidy(" ".join(said).strip(" ,.!"))


class Framer:
    """Words requests of one kind in other styles; equal generators give equal sentences."""

    def __init__(self, requests: Sequence[str], wrong: Sequence[Sequence[Sequence[str]]], rng: random.Random) -> None:
        """Args:
        requests: plain sentences that mean the same.
        wrong: requests that a speaker may begin with by mistake: lists of lists of them, the first drawn most often.
        rng: of all choices; Python's, which draws one thing at a time ten times as fast as numpy's.
        """
        self._requests = requests
        self._orders = orders(requests)
        self._wrong = [lists for lists in wrong if lists]
        self._rng = rng

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _said(self, kind: str) -> str:
        return _phrases().draw(self._rng.choice(_material()[kind]), self._rng)

    def spoken(self) -> str:
        """A request as a speech recogniser gives it: no punctuation; hesitations, repeats and corrections."""
        words = self._respelt(self._rng.choice(self._requests)).replace(",", "").split()
        if self._chance(0.3):
            words = self._with_slip(words)
        elif self._chance(0.25):
            words = [*self._false_start(), *self._said("repairs").split(), *words]
        for _ in range(self._rng.randrange(3)):
            place = self._rng.randrange(len(words))
            words[place:place] = str(self._rng.choice(_material()["hesitations"])).split()
        if self._chance(0.2):
            place, length = self._rng.randrange(len(words)), self._rng.randrange(1, 4)
            words[place:place] = words[place : place + length]
        before = self._said("openers") if self._chance(0.7) else ""
        after = self._said("closers") if self._chance(0.5) else ""
        return " ".join(f"{before} {' '.join(words)} {after}".split())

    def _with_slip(self, words: list[str]) -> list[str]:
        """Names another colour, direction or thing first and takes it back: 'the blue no the red block'."""
        rows = {word: row for row in _CONFUSED for word in row}
        places = [place for place, word in enumerate(words) if word in rows]
        if not places:
            return [*self._false_start(), *self._said("repairs").split(), *words]
        place = self._rng.choice(places)
        wrong = self._rng.choice([word for word in rows[words[place]] if word != words[place]])
        went_on = self._rng.randrange(2)
        again = self._rng.randrange(min(3, place + 1))
        said = [*words[:place], wrong, *words[place + 1 : place + 1 + went_on], *self._said("repairs").split()]
        return [*said, *words[place - again :]]

    def _false_start(self) -> list[str]:
        """The beginning of a request of another task, or all of it."""
        sentences = self._rng.choice(self._wrong[0 if self._chance(0.7) else -1])
        words = self._rng.choice(sentences).replace(",", "").split()
        return list(words[: self._rng.randrange(1, len(words) + 1)])

    def _respelt(self, text: str) -> str:
        for plain, others in _material()["spellings"].items():
            if self._chance(0.3):
                text = re.sub(rf"\b{plain}\b", self._rng.choice(others), text, count=1)
        return text

    def wordy(self) -> str:
        """A request in 15 to 45 words or so, with context before and behind it."""
        request = self._rng.choice(self._requests)
        if self._orders and self._chance(0.5):
            request = self._said("orders").format(order=self._rng.choice(self._orders))
        before, after = self._context(request), self._behind(request)
        text = self._rng.choice((f"{before} {request}", f"{request}{after}", f"{before} {request}{after}"))
        if len(text.split()) < 18:
            text = f"{before} {request}{after}"
        if self._chance(0.3):
            text = f"{self._said('greetings')} {text}"
        text = self._respelt(text) if self._chance(0.3) else text
        text = _tidy(text + "." if self._chance(0.2) else text)
        return re.sub(r"[,.!;:]", "", text) if self._chance(0.1) else text

    def _context(self, request: str) -> str:
        if self._chance(0.15):
            return self._contrast(request) + self._rng.choice((",", ".", ", but", " and"))
        if self._chance(0.15):
            return f"{self._said('reasons')}{self._rng.choice(('.', '!', ';', ':'))}"
        return f"{self._said('reasons')}, {self._said_link()}"

    def _said_link(self) -> str:
        return _phrases().draw("(<link>|<link> <calm>|please|<calm>,|)", self._rng)

    def _behind(self, request: str) -> str:
        mark = self._rng.choice((",", ",", ".", ""))
        if self._chance(0.15):
            return f"{mark} {self._contrast(request)}"
        return f"{mark} {self._said('after')}"

    def _contrast(self, request: str) -> str:
        """Sets something aside that the request is not about."""
        words = re.findall(r"\w+", request)
        if self._chance(0.3) and (told := [row for row in _CONFUSED[:2] if set(row) & set(words)]):
            row = self._rng.choice(told)
            wrong = self._rng.choice([word for word in row if word not in words] or ["other"])
            return _phrases().draw(
                f"(not|and not|i do not mean|don't take) (the {wrong} one|{wrong}|the {wrong})", self._rng
            )
        named = set(words)
        things = [thing for thing, words in _THINGS.items() if not named & set(words)]
        return self._said("contrasts").format(thing=self._rng.choice(things))
