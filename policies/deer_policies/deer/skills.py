"""Recognises which of the robot's skills an instruction asks for, and whether it asks for any.

A small text model of its own: words and pieces of words, convolutions, the maximum over the text. It does not share the
policy's layers, so that it can be trained apart, costs nothing per control step, and judges before anything moves.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.interfaces import Understanding

MOST_WORDS = 96
"""Of a text; what comes after them is not read."""
PIECE = 4
"""Letters of a piece of a word."""
PAD, UNKNOWN = 0, 1
DROPOUT = 0.2
"""While training, of what words are known by and of what a text comes down to."""


@dataclass(frozen=True)
class Skills:
    """What a recogniser tells apart.

    Attributes:
        tasks: names of all tasks that it knows, in the order of its outputs.
        learned: those that the policy was trained on; the others are outside its skills.
        examples: a sentence for each task, to show to a person.
        threshold: least score, in (0, 1), of an instruction that is taken for one of the skills.
    """

    tasks: tuple[str, ...]
    learned: tuple[str, ...]
    examples: Mapping[str, str]
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not self.tasks or not set(self.learned) <= set(self.tasks):
            raise ConfigError(f"skills {self.learned} must be among the tasks {self.tasks}, of which one is needed")
        if set(self.examples) != set(self.tasks):
            raise ConfigError("skills need one example sentence for each of the tasks")
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"the threshold of the skills is {self.threshold}; it must be in (0, 1)")


@dataclass(frozen=True)
class SkillsConfig:
    """Sizes of the model: dim of words, channels of the convolutions, buckets that pieces of words fall into."""

    dim: int = 40
    channels: int = 64
    layers: int = 3
    pieces: int = 1500


def words_of(text: str) -> list[str]:
    """Lower-case words, at most `MOST_WORDS`; punctuation is left out, as speech has none."""
    return re.findall(r"[\w']+", text.lower())[:MOST_WORDS]


@dataclass(frozen=True)
class Encoded:
    """A batch of texts whose different words are looked up once.

    Attributes:
        texts: (batch, words) rows of the two below; 0 is padding.
        words: (different words,) numbers of words.
        pieces: (different words, pieces) numbers of their pieces, padded with 0.
    """

    texts: torch.Tensor
    words: torch.Tensor
    pieces: torch.Tensor


class SkillRecogniser(nn.Module):
    """Scores of all tasks and of 'none of them' for a text."""

    def __init__(self, skills: Skills, vocabulary: Sequence[str], config: SkillsConfig | None = None) -> None:
        """Args:
        skills: what it tells apart.
        vocabulary: words that have a vector of their own; others are known by their pieces.
        config: sizes.
        """
        super().__init__()
        self.skills = skills
        self.vocabulary = tuple(vocabulary)
        self.config = config or SkillsConfig()
        self._index = {word: number for number, word in enumerate(self.vocabulary, UNKNOWN + 1)}
        self._pieces: dict[str, list[int]] = {}
        dim, channels = self.config.dim, self.config.channels
        self.word = nn.Embedding(len(self.vocabulary) + UNKNOWN + 1, dim, padding_idx=PAD)
        self.piece = nn.Embedding(self.config.pieces + 1, dim, padding_idx=PAD)
        widths = [dim, *[channels] * self.config.layers]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, channels, 3, padding=2**number, dilation=2**number)
            for number, before in enumerate(widths[:-1])
        )
        self.hidden = nn.Linear(2 * channels, channels)
        self.out = nn.Linear(channels, len(skills.tasks) + 1)

    def _pieces_of(self, word: str) -> list[int]:
        if word not in self._pieces:
            framed = f"<{word}>"
            parts = {framed[start : start + PIECE] for start in range(max(1, len(framed) - PIECE + 1))}
            # crc32 is the same on every machine and in every run, unlike hash().
            self._pieces[word] = sorted(zlib.crc32(part.encode()) % self.config.pieces + 1 for part in parts)
        return self._pieces[word]

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Texts as numbers of words and of their pieces; a text without words counts as one of an unknown word."""
        rows = [words_of(text) or ["?"] for text in texts]
        places: dict[str, int] = {}
        for row in rows:
            for word in row:
                places.setdefault(word, len(places) + 1)
        longest = max(len(row) for row in rows)
        text = [[places[word] for word in row] + [0] * (longest - len(row)) for row in rows]
        pieces = [[], *(self._pieces_of(word) for word in places)]
        most = max(len(numbers) for numbers in pieces)
        return Encoded(
            torch.tensor(text),
            torch.tensor([PAD, *(self._index.get(word, UNKNOWN) for word in places)]),
            torch.tensor([[*numbers, *[PAD] * (most - len(numbers))] for numbers in pieces]),
        )

    def forward(self, encoded: Encoded) -> torch.Tensor:
        """Logits (batch, tasks + 1), the last one of 'none of them'."""
        there = (encoded.texts != 0)[:, None]
        counts = (encoded.pieces != PAD).sum(-1, keepdim=True).clamp(min=1)
        vectors = self.word(encoded.words) + self.piece(encoded.pieces).sum(-2) / counts
        x = F.dropout(vectors[encoded.texts], DROPOUT, self.training).transpose(1, 2)
        for layer in self.layers:
            y = F.gelu(layer(x * there))
            x = y if y.shape != x.shape else x + y
        most = x.masked_fill(~there, -1e4).amax(-1)
        mean = (x * there).sum(-1) / there.sum(-1)
        pooled = F.dropout(torch.cat([most, mean], -1), DROPOUT, self.training)
        return self.out(F.gelu(self.hidden(pooled)))

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> torch.Tensor:
        """(batch, tasks + 1), the last one of 'none of them'."""
        self.eval()
        return torch.softmax(self(self.encode(texts)), -1)

    def understand(self, texts: Sequence[str]) -> list[Understanding]:
        """What each of the texts is taken for; see `Understanding`."""
        skills = self.skills
        able = torch.tensor([task in skills.learned for task in skills.tasks])
        found = []
        for row in self.probabilities(texts)[:, :-1]:
            number, score = int(row.argmax()), float(row[able].sum())
            task = skills.tasks[number]
            known = bool(able[number]) and score >= skills.threshold
            found.append(Understanding(task, known, score, skills.examples[task], self._offers(task)))
        return found

    def _offers(self, task: str) -> tuple[str, ...]:
        """Sentences for a few of the skills, those with the most name parts in common with the task first."""
        parts = set(task.split("_"))
        near = sorted(self.skills.learned, key=lambda name: -len(parts & set(name.split("_"))))
        return tuple(self.skills.examples[name] for name in near[:OFFERED])

    def with_threshold(self, threshold: float) -> SkillRecogniser:
        """The same one, which from now on takes a text for a skill from this score on."""
        self.skills = replace(self.skills, threshold=threshold)
        return self

    def to_json(self) -> str:
        """Everything but the weights."""
        return json.dumps({"skills": asdict(self.skills), "vocabulary": self.vocabulary, "config": asdict(self.config)})

    @classmethod
    def from_json(cls, text: str, weights: Mapping[str, torch.Tensor]) -> SkillRecogniser:
        """The inverse of `to_json`. Raises CheckpointError if text or weights are damaged."""
        try:
            values: dict[str, Any] = json.loads(text)
            skills = values["skills"]
            names = {name: tuple(skills[name]) for name in ("tasks", "learned")}
            made = cls(Skills(**{**skills, **names}), values["vocabulary"], SkillsConfig(**values["config"]))
            made.load_state_dict(weights)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"the recogniser of skills of this checkpoint can't be read ({error}); the file is damaged"
            ) from error
        return made.eval()


OFFERED = 3
"""Sentences to show with an instruction that was not understood."""


def vocabulary_of(texts: Iterable[str], least: int = 2) -> tuple[str, ...]:
    """Words that occur at least so often, in alphabetical order."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in words_of(text):
            counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(word for word, count in counts.items() if count >= least))
