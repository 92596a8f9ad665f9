"""PocketSphinx with a grammar: hears only sentences that it knows, in little time, with weights from its own package.

A grammar makes a known sentence of anything. How much better the sentence explains the sound than any sequence of
phonemes does tells whether that sentence was said: a likelihood ratio against a filler model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deer_policies.speech.audio import FULL_SCALE, to_pcm
from deer_policies.speech.recognition.engine import GRAMMAR, Alternative, Transcript
from deer_policies.speech.recognition.words import normalised

CONTROL = (
    *("stop", "wait", "pause", "continue", "go on", "think harder", "save power", "what are you doing", "yes", "no"),
    *("the red one", "the blue one", "the pink one", "red", "blue", "pink", "left", "right", "on", "off"),
)
"""Said besides instructions."""
POLITE = ("please", "robot", "now", "could you", "can you please")
DITHER = 3e-4
"""Amplitude of the noise added to everything: digital silence ruins the features."""
MIDDLE, WIDTH = -0.12, 0.03
"""Log-likelihood against that of any phonemes, in the decoder's units for a second of sound, at which a sentence is as
likely as not, and how fast that changes."""
FRAMES_A_SECOND = 100
LEAST = 0.4
"""Below it, no sentence of the grammar was said."""


class GrammarRecogniser:
    """Args:
    sentences: that may be said; words that the dictionary does not have make a sentence drop out.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        from pocketsphinx import Decoder, get_model_path

        self._random = np.random.default_rng(0)
        self._decoder = Decoder(loglevel="FATAL", bestpath=False)
        known = [text for text in dict.fromkeys(map(normalised, (*CONTROL, *sentences))) if self._spelled(text)]
        choices = " | ".join(known)
        polite = " | ".join(POLITE)
        self._decoder.add_jsgf_string("commands", f"#JSGF V1.0; grammar g; public <c> = [ {polite} ] ( {choices} );")
        self._filler = Decoder(
            loglevel="FATAL",
            lm=None,
            allphone=get_model_path("en-us/en-us-phone.lm.bin"),
            lw=2.0,
            beam=1e-20,
            pbeam=1e-20,
        )
        self._decoder.activate_search("commands")

    def _spelled(self, text: str) -> bool:
        return all(self._decoder.lookup_word(word) for word in text.split())

    def transcribe(self, samples: np.ndarray) -> Transcript:
        """See `Recogniser`."""
        noise = DITHER * self._random.standard_normal(len(samples))
        data = to_pcm(np.clip(samples + noise, -1, 1 - 1 / FULL_SCALE)).tobytes()
        for decoder in (self._decoder, self._filler):
            decoder.start_utt()
            decoder.process_raw(data, full_utt=True)
            decoder.end_utt()
        best = self._decoder.hyp()
        if best is None or not best.hypstr.strip():
            return Transcript((), 0.0, GRAMMAR)
        frames = max(1, self._decoder.n_frames())
        filler = self._filler.hyp()
        ratio = FRAMES_A_SECOND * math.log(best.score / filler.score) / frames if filler is not None else 0.0
        confidence = 1 / (1 + math.exp(-(ratio - MIDDLE) / WIDTH))
        if confidence < LEAST:
            return Transcript((), confidence, GRAMMAR)
        return Transcript((Alternative(normalised(best.hypstr), 1.0),), confidence, GRAMMAR)
