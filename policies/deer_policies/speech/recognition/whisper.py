"""Whisper (arXiv 2212.04356) tiny.en by faster-whisper, with its n best readings and their probabilities."""

from __future__ import annotations

import math

import numpy as np

from deer_policies.model_store.store import ModelStore
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.recognition.engine import WHISPER, Alternative, Transcript
from deer_policies.speech.recognition.words import normalised

MODEL = "whisper-tiny.en"
PROMPT = (
    "Commands to a robot arm at a table: open the drawer, push the red block, slide the door to the left, "
    "turn on the LED, turn off the light bulb, rotate the pink block, lift the blue block, stack the blocks."
)
"""What came before, for Whisper: it leans towards these words."""
READINGS, MOST_TOKENS = 5, 60
SILENCE_PROBABILITY, LEAST_LOG_PROBABILITY = 0.6, -1.0
"""Nothing was said if the first is exceeded and a token's mean log-probability is below the second; as upstream."""
MOST_SECONDS = 30.0


class Whisper:
    """Args:
    threads: of the processor.
    """

    def __init__(self, threads: int = 1) -> None:
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer

        folder = ModelStore().path(MODEL)
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
        self._tokenizer = Tokenizer(self._model.hf_tokenizer, False)
        before = self._tokenizer.encode(" " + PROMPT)
        self._prompt = self._model.get_prompt(self._tokenizer, before, without_timestamps=True)

    def transcribe(self, samples: np.ndarray) -> Transcript:
        """See `Recogniser`. What comes after 30 s is not heard."""
        from faster_whisper.audio import pad_or_trim

        samples = np.asarray(samples[: int(MOST_SECONDS * RATE_HZ)], np.float32)
        features = pad_or_trim(self._model.feature_extractor(samples)[..., :-1])
        result = self._model.model.generate(
            self._model.encode(features),
            [self._prompt],
            beam_size=READINGS,
            num_hypotheses=READINGS,
            max_length=len(self._prompt) + MOST_TOKENS,
            length_penalty=1.0,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=[-1],
        )[0]
        # The score is the sum of log-probabilities over the length.
        best_mean = max(result.scores)
        if result.no_speech_prob > SILENCE_PROBABILITY and best_mean < LEAST_LOG_PROBABILITY:
            return Transcript((), 0.0, WHISPER)
        sums: dict[str, float] = {}
        for tokens, score in zip(result.sequences_ids, result.scores, strict=True):
            text = normalised(self._tokenizer.decode(tokens))
            if text:
                sums[text] = sums.get(text, 0.0) + math.exp(score * max(1, len(tokens)))
        if not sums:
            return Transcript((), 0.0, WHISPER)
        total = sum(sums.values())
        readings = sorted(sums.items(), key=lambda item: -item[1])
        alternatives = tuple(Alternative(text, value / total) for text, value in readings)
        return Transcript(alternatives, math.exp(best_mean) * alternatives[0].probability, WHISPER)
