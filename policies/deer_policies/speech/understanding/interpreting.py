"""From the readings of an utterance to what is meant, with a question where two tasks remain, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.speech.recognition.engine import Transcript
from deer_policies.speech.recognition.words import put_right
from deer_policies.speech.understanding import slots
from deer_policies.speech.understanding.embedding import Embedder
from deer_policies.speech.understanding.phrasing import choice, plan_spoken, question


class Intent(StrEnum):
    """What somebody wants."""

    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    MORE = "think harder"
    LESS = "save power"
    QUESTION = "question"
    INSTRUCTION = "instruction"
    UNSURE = "unsure"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Meaning:
    """What an utterance means.

    Attributes:
        intent: what is wanted.
        text: the reading that it comes from.
        tasks: for INSTRUCTION what is to be done, in order; for UNSURE what it may be.
        score: how sure that is, 0 to 1.
        reply: what the robot says to it; '' for nothing.
    """

    intent: Intent
    text: str
    tasks: tuple[str, ...] = ()
    score: float = 1.0
    reply: str = ""


class SkillJudge(Protocol):
    """Tells which task a text asks for, as `deer_policies.deer.skills.SkillRecogniser` does.

    Attributes:
        tasks: names, in the order of the columns.
    """

    @property
    def tasks(self) -> Sequence[str]: ...

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, tasks + 1), the last column for none of them."""
        ...


@dataclass(frozen=True)
class InterpreterSettings:
    """Thresholds.

    Attributes:
        accept: least score of an instruction.
        ask: least score of the tasks between which the robot asks.
        near, far: cosine to the nearest example at which a text is surely, or surely not, about a task.
        confidence: least confidence of the transcript.
        doubt: share of readings that say what is not to be done, at which an order is none.
    """

    accept: float = 0.5
    ask: float = 0.5
    near: float = 0.7
    far: float = 0.4
    confidence: float = 0.3
    doubt: float = 0.1

    def __post_init__(self) -> None:
        for name in ("accept", "ask", "near", "far", "confidence", "doubt"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        if self.far >= self.near:
            raise ConfigError(f"far is {self.far}; it must be below near, {self.near}")


MOST_ANSWER_WORDS = 6
"""Of the answer to a question; more is a new order."""
_CALL = r"^(?:(?:please|robot|hey|ok|okay|so|um|uh|well|now|and) )*"
"""What may come before the words that count."""
_WORDS: tuple[tuple[Intent, str], ...] = (
    (Intent.STOP, r"\b(?:stop|halt|freeze|emergency)\b"),
    (Intent.PAUSE, _CALL + r"(?:pause|wait|hold on|hang on|one moment|just a (?:moment|second))\b"),
    (Intent.RESUME, _CALL + r"(?:continue|go on|resume|carry on|keep going|go ahead)\b"),
    (Intent.MORE, r"\b(?:think (?:harder|more|longer|deeper)|be (?:more )?(?:careful|precise)|full power)\b"),
    (Intent.LESS, r"\b(?:(?:save|use less) (?:power|energy|battery)|save the battery|think less|low power)\b"),
)
_REQUEST = _CALL + r"(?:can|could|would|will|won't) you\b"
_QUESTION = _CALL + (
    r"(?:what|which|who|whose|where|when|why(?! don't you)|how(?! about)|is|are|am|was|were|did|do you|does|has"
    r"|have you|had|can i|tell me)\b"
)


def says_stop(transcript: Transcript) -> bool:
    """Whether any reading has a word that stops: it is never wrong to hold still."""
    return any(re.search(_WORDS[0][1], put_right(each.text)) for each in transcript.alternatives)


@dataclass
class Interpreter:
    """Reads utterances; remembers the question that it asked last.

    Args:
        judge: which task a text asks for.
        embedder: which example a text is nearest to; None leaves that to the judge.
        examples: sentences of each task.
        settings: thresholds.
    """

    judge: SkillJudge
    embedder: Embedder | None
    examples: Mapping[str, Sequence[str]]
    settings: InterpreterSettings = field(default_factory=InterpreterSettings)
    asked: tuple[str, ...] = ()
    lifted: str = ""

    def __post_init__(self) -> None:
        if missing := [task for task in self.judge.tasks if not self.examples.get(task)]:
            raise ConfigError(f"there are no example sentences of task {missing[0]}")
        texts = [(at, text) for at, task in enumerate(self.judge.tasks) for text in self.examples[task]]
        self._owners = np.array([at for at, _ in texts])
        self._anchors = self.embedder.embed([text for _, text in texts]) if self.embedder else None

    def interpret(self, transcript: Transcript) -> Meaning:
        """What is meant. A question that was asked before is answered or forgotten by it."""
        readings = [(put_right(each.text), each.probability) for each in transcript.alternatives]
        asked, self.asked = self.asked, ()
        if not readings or not readings[0][0]:
            return Meaning(Intent.NOTHING, "", score=0.0)
        text = readings[0][0]
        if says_stop(transcript):
            return Meaning(Intent.STOP, text)
        if transcript.confidence < self.settings.confidence:
            return Meaning(Intent.NOTHING, text, score=transcript.confidence)
        for intent, pattern in _WORDS[1:]:
            if re.search(pattern, text):
                return Meaning(intent, text)
        if asked and (answer := self._answer(text, asked)):
            return answer
        if re.search(_QUESTION, text) and not re.search(_REQUEST, text):
            return Meaning(Intent.QUESTION, text)
        return self._instruction(readings)

    def _answer(self, text: str, asked: Sequence[str]) -> Meaning | None:
        """The task of those that were asked about which a short answer picks, or what is still open."""
        if len(text.split()) > MOST_ANSWER_WORDS or slots.negated(text) or "not" in text.split():
            return None
        said = slots.named(text)
        left = [
            task
            for task in asked
            if all(value in said[slot] for slot, value in slots.of_task(task).values.items() if said[slot])
        ]
        if not left or len(left) == len(asked):
            return None
        return self._accepted(text, left[0], 1.0) if len(left) == 1 else self._open(text, left, 1.0)

    def _instruction(self, readings: Sequence[tuple[str, float]]) -> Meaning:
        text = readings[0][0]
        if self._doubted(readings):
            return Meaning(Intent.NOTHING, text, score=0.0)
        parts = [part for part in re.split(r"\b(?:and then|after that|then)\b", text) if len(part.split()) > 1]
        if len(parts) > 1:
            return self._sequence(text, parts)
        if slots.told(text):
            return Meaning(Intent.NOTHING, text, score=0.0)
        colour, _ = slots.placed(text)
        if colour:
            readings = [(slots.placed(reading)[1], weight) for reading, weight in readings if slots.placed(reading)[0]]
        totals, best = self.scores(readings)
        task = self.judge.tasks[int(totals.argmax())]
        score = float(totals.max())
        # The reading that speaks most for the task is the one that is judged.
        text = best[task] or text
        if score >= self.settings.ask and (missing := slots.unnamed(text, task)):
            return self._open(text, slots.siblings(task, missing[0], self.judge.tasks), score)
        if score >= self.settings.accept:
            return self._accepted(text, task, score, colour)
        return self._completed(text) or self._between(text, totals)

    def _doubted(self, readings: Sequence[tuple[str, float]]) -> bool:
        """Whether something that is not to be done may have been said: "never" is easily heard as "then"."""
        negated = [probability for reading, probability in readings if slots.negated(reading)]
        return slots.negated(readings[0][0]) or (bool(negated) and sum(negated) >= self.settings.doubt)

    def _completed(self, text: str) -> Meaning | None:
        """Asks for what a text leaves open, if it would be clear with it."""
        completions = slots.completions(text)
        if not completions:
            return None
        scores = np.stack([self.scores([(completion, 1.0)])[0] for completion in completions])
        if scores.max() < self.settings.accept:
            return None
        tasks = {self.judge.tasks[int(row.argmax())] for row in scores if row.max() >= self.settings.accept}
        # With nothing to choose, what was filled in made the sense.
        return self._open(text, sorted(tasks), float(scores.max())) if len(tasks) > 1 else None

    def _open(self, text: str, tasks: Sequence[str], score: float) -> Meaning:
        """Asks about the first slot in which tasks differ; what is answered leaves the others to ask about."""
        for slot in slots.SLOTS:
            values = [slots.of_task(task).values.get(slot, "") for task in tasks]
            if "" not in values and len(set(values)) > 1:
                self.asked = tuple(tasks)
                return Meaning(Intent.UNSURE, text, self.asked, score, question(slot, tasks))
        return Meaning(Intent.NOTHING, text, tuple(tasks), score)

    def _sequence(self, text: str, parts: Sequence[str]) -> Meaning:
        """Several orders in one utterance: all of them are clear, or none is taken."""
        meanings = [self._instruction([(part.strip(), 1.0)]) for part in parts]
        for meaning in meanings:
            if meaning.intent is not Intent.INSTRUCTION:
                return Meaning(Intent.NOTHING, text, meaning.tasks, meaning.score)
        tasks = tuple(task for meaning in meanings for task in meaning.tasks)
        score = min(meaning.score for meaning in meanings)
        return Meaning(Intent.INSTRUCTION, text, tasks, score, plan_spoken(tasks))

    def scores(self, readings: Sequence[tuple[str, float]]) -> tuple[np.ndarray, dict[str, str]]:
        """Score (tasks,) over all readings, and for each task the reading that speaks most for it, '' for none.

        A reading speaks for a task as far as the judge says so, its nearest example is near, and no slot contradicts.
        """
        texts = [text for text, _ in readings]
        judged = np.asarray(self.judge.probabilities(texts))[:, :-1]
        near = self._nearness(texts)
        fits = np.array([[not slots.contradicts(text, task) for task in self.judge.tasks] for text in texts])
        weights = np.array([probability for _, probability in readings])[:, None]
        each = weights * judged * near * fits
        best = {
            task: texts[int(each[:, at].argmax())] if each[:, at].any() else ""
            for at, task in enumerate(self.judge.tasks)
        }
        return each.sum(0), best

    def _nearness(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, tasks) from 0 to 1: how near the nearest example of a task is."""
        if self.embedder is None or self._anchors is None:
            return np.ones((len(texts), len(self.judge.tasks)))
        cosines = self.embedder.embed(texts) @ self._anchors.T
        nearest = np.stack([cosines[:, self._owners == at].max(1) for at in range(len(self.judge.tasks))], 1)
        return np.clip((nearest - self.settings.far) / (self.settings.near - self.settings.far), 0, 1)

    def _accepted(self, text: str, task: str, score: float, colour: str = "") -> Meaning:
        """An instruction. A block of a colour that is not in the hand has to be lifted before it is put somewhere."""
        tasks: tuple[str, ...] = (task,)
        if task.startswith("place_in") and colour and colour != self.lifted:
            lift = f"lift_{colour}_block_table"
            tasks = (lift, task) if lift in self.judge.tasks else tasks
        return Meaning(Intent.INSTRUCTION, text, tasks, score, plan_spoken(tasks))

    def _between(self, text: str, totals: np.ndarray) -> Meaning:
        """Asks if two tasks share what would be enough for one."""
        first, second = (int(at) for at in np.argsort(-totals)[:2])
        tasks = (self.judge.tasks[first], self.judge.tasks[second])
        score = float(totals[first] + totals[second])
        if score < self.settings.ask or totals[second] < 0.25 * totals[first]:
            return Meaning(Intent.NOTHING, text, tasks[:1], float(totals[first]))
        if slots.differing(tasks):
            return self._open(text, tasks, score)
        self.asked = tasks
        return Meaning(Intent.UNSURE, text, tasks, score, choice(tasks))

    def done(self, task: str) -> None:
        """Tells of a task that was carried out, so that it is known what is in the hand."""
        if task.startswith("lift_"):
            self.lifted = slots.of_task(task).values["colour"]
        elif task.startswith(("place_", "stack", "push_into")):
            self.lifted = ""
