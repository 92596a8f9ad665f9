"""Scores of `voice.py`: what was taken for what, by condition, and what other thresholds would give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deer_policies.speech.understanding.interpreting import Intent, InterpreterSettings, Meaning

ALL = "all"


@dataclass(frozen=True)
class Scored:
    """An utterance and what came of it; task '' is out of scope, delay_s is from the end of speech to the command."""

    text: str
    task: str
    voice: str
    condition: str
    heard: str
    meaning: Meaning
    errors: int
    words: int
    delay_s: float

    @property
    def outcome(self) -> str:
        """right, wrong, asked or refused; out of scope, accepted (something would move), asked or refused."""
        intent, tasks = self.meaning.intent, self.meaning.tasks
        if intent is Intent.INSTRUCTION:
            if not self.task:
                return "accepted"
            return "right" if tasks[-1] == self.task else "wrong"
        if intent is Intent.UNSURE:
            return "asked"
        return "refused"


def _rates(results: Sequence[Scored]) -> dict[str, float]:
    inside = [each for each in results if each.task]
    outside = [each for each in results if not each.task]
    delays = [each.delay_s for each in inside]
    count = {
        name: sum(each.outcome == name for each in inside) / max(1, len(inside)) for name in ("right", "wrong", "asked")
    }
    return {
        "inside": len(inside),
        "word errors": sum(each.errors for each in inside) / max(1, sum(each.words for each in inside)),
        **count,
        "outside": len(outside),
        "accepted": sum(each.outcome == "accepted" for each in outside) / max(1, len(outside)),
        "delay p50": float(np.percentile(delays, 50)) if delays else 0.0,
        "delay p95": float(np.percentile(delays, 95)) if delays else 0.0,
    }


def table(results: Sequence[Scored]) -> str:
    """Rates by condition."""
    lines = [
        "| condition | commands | word errors | right | wrong | asked | out of scope | accepted | delay p50, p95 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*dict.fromkeys(each.condition for each in results), ALL):
        found = _rates([each for each in results if name in (each.condition, ALL)])
        lines.append(
            f"| {name} | {found['inside']} | {found['word errors']:.1%} | {found['right']:.1%} | {found['wrong']:.1%} "
            f"| {found['asked']:.1%} | {found['outside']} | {found['accepted']:.1%} "
            f"| {found['delay p50']:.2f}, {found['delay p95']:.2f} s |"
        )
    return "\n".join(lines)


def described(results: Sequence[Scored]) -> dict[str, Any]:
    """Rates by condition, and each utterance that was not taken right."""
    return {
        "rates": {
            name: _rates([each for each in results if name in (each.condition, ALL)])
            for name in (*dict.fromkeys(each.condition for each in results), ALL)
        },
        "not right": [
            [
                each.condition,
                each.voice,
                each.text,
                each.heard,
                str(each.meaning.intent),
                each.meaning.tasks,
                round(each.meaning.score, 3),
            ]
            for each in results
            if each.outcome in ("wrong", "accepted") or (each.task and each.outcome == "refused")
        ],
    }


def sweep(run: Callable[[InterpreterSettings], list[Scored]]) -> str:
    """Rates over all conditions with other thresholds."""
    lines = [
        "| accept | near | far | confidence | right | wrong | asked | accepted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for accept, (near, far), confidence in itertools.product(
        (0.5, 0.6, 0.65, 0.7, 0.75, 0.8), ((0.8, 0.5), (0.7, 0.4), (0.75, 0.55)), (0.15, 0.3)
    ):
        settings = InterpreterSettings(accept=accept, ask=min(0.5, accept), near=near, far=far, confidence=confidence)
        found = _rates(run(settings))
        lines.append(
            f"| {accept} | {near} | {far} | {confidence} | {found['right']:.1%} | {found['wrong']:.1%} "
            f"| {found['asked']:.1%} | {found['accepted']:.1%} |"
        )
    return "\n".join(lines)
