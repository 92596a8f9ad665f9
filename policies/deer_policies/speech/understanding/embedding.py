"""Sentences as vectors by all-MiniLM-L6-v2 (8 bit, onnxruntime): near ones mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.model_store.store import ModelStore

MODEL = "minilm-l6"
MOST_TOKENS = 128
BATCH = 64


class Embedder(Protocol):
    """Vectors of sentences."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, dim) float32, each of length 1."""
        ...


class MiniLm:
    """The mean of the tokens' vectors, normalised, as upstream.

    Args:
        threads: of the processor.
    """

    def __init__(self, threads: int = 1) -> None:
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(f"sentence vectors need {error.name}: pip install 'deer_ros[speech]'") from error
        folder = ModelStore().path(MODEL)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(folder / "onnx" / "model_quantized.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder`."""
        parts = [self._batch(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def _batch(self, texts: Sequence[str]) -> np.ndarray:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([each.ids for each in encoded], np.int64)
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        tokens = self._session.run(None, given)[0]
        weights = mask[:, :, None].astype(np.float32)
        means = (tokens * weights).sum(1) / weights.sum(1)
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
