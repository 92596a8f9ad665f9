"""Text to token ids: byte-level BPE sub-words, so that any text has ids; the whole tokenizer is one JSON string."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import tokenizers
import torch

from deer_policies.errors import CheckpointError, ConfigError

END = "<|endoftext|>"
PAD = "<PAD>"
IMAGE = "<image>"
END_OF_CHUNK = "<|endofchunk|>"
SPECIAL_TOKENS = (END, PAD, IMAGE, END_OF_CHUNK)


class Tokenizer:
    """Wraps an instruction in OpenFlamingo's prompt: <image>, the text, <|endofchunk|>, <|endoftext|>."""

    def __init__(self, definition: str, max_tokens: int, lowercase: bool) -> None:
        """Args:
        definition: JSON of a Hugging Face `tokenizers` tokenizer that holds `SPECIAL_TOKENS`.
        max_tokens: longer prompts are cut at the end.
        lowercase: lower-case the instruction first.

        Raises:
            CheckpointError: if the definition can't be read or lacks a special token.
        """
        try:
            self._core = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"the tokenizer definition can't be read ({error}); the file is damaged") from error
        # A marker that someone types in an instruction is text, not a marker.
        self._core.encode_special_tokens = True
        self._core.no_padding()
        self._core.no_truncation()
        self.max_tokens = max_tokens
        self.lowercase = lowercase
        self._end, self._pad, self._image, self._end_of_chunk = (self._special(token) for token in SPECIAL_TOKENS)

    def _special(self, token: str) -> int:
        number = self._core.token_to_id(token)
        if number is None:
            raise CheckpointError(f"the tokenizer lacks the special token {token}; add it before saving the tokenizer")
        return number

    @classmethod
    def train(cls, corpus: Iterable[str], vocabulary: int, max_tokens: int, lowercase: bool = True) -> Tokenizer:
        """Learns sub-words from a corpus; the same corpus gives the same tokenizer.

        Args:
            corpus: sentences of the kind that will come.
            vocabulary: most entries, special tokens and the 256 bytes included.

        Raises:
            ConfigError: if the vocabulary can't hold the bytes and the special tokens.
        """
        if vocabulary < 256 + len(SPECIAL_TOKENS):
            raise ConfigError(f"vocabulary is {vocabulary}; it needs at least {256 + len(SPECIAL_TOKENS)} entries")
        core = tokenizers.Tokenizer(tokenizers.models.BPE())
        core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        sentences = sorted({text.lower() if lowercase else text for text in corpus})
        core.train_from_iterator(sentences, trainer)
        return cls(core.to_str(), max_tokens, lowercase)

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self._core.get_vocab_size(with_added_tokens=True)

    def encode(self, instruction: str) -> list[int]:
        """Token ids of the prompt around the instruction, at most `max_tokens`."""
        text = instruction.strip()
        if self.lowercase:
            text = text.lower()
        ids = self._core.encode(text, add_special_tokens=False).ids
        return [self._image, *ids, self._end_of_chunk, self._end][: self.max_tokens]

    def encode_batch(self, instructions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (batch, tokens) int64, padded on the right, and their mask (batch, tokens) bool."""
        rows = [self.encode(instruction) for instruction in instructions]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, torch.arange(longest)[None] < lengths[:, None]

    def to_json(self) -> str:
        """Everything that `from_json` needs."""
        return json.dumps(
            {"definition": self._core.to_str(), "max_tokens": self.max_tokens, "lowercase": self.lowercase}
        )

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """The inverse of `to_json`. Raises CheckpointError if the text is damaged."""
        try:
            values = json.loads(text)
            return cls(values["definition"], int(values["max_tokens"]), bool(values["lowercase"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the tokenizer of this checkpoint can't be read ({error}); the file is damaged"
            ) from error
