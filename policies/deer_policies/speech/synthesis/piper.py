"""Piper's voice 'joe', run with onnxruntime on the phonemes of espeak-ng (weights by `deer models fetch`)."""

from __future__ import annotations

import json
import subprocess
import unicodedata

import numpy as np

from deer_policies.model_store.store import ModelStore
from deer_policies.speech.audio import resampled
from deer_policies.speech.synthesis.commands import program

MODEL = "piper-joe"
NAME = "en_US-joe-medium"


class Piper:
    """One voice, which tests use because nothing else here sounds like it."""

    voices: tuple[str, ...] = ("joe",)

    def __init__(self) -> None:
        import onnxruntime

        folder = ModelStore().path(MODEL)
        settings = json.loads((folder / f"{NAME}.onnx.json").read_text())
        self._espeak = program("espeak-ng")
        self._numbers: dict[str, list[int]] = settings["phoneme_id_map"]
        self._rate_hz = int(settings["audio"]["sample_rate"])
        inference = settings["inference"]
        self._scales = (inference["noise_scale"], inference["length_scale"], inference["noise_w"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / f"{NAME}.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def say(self, text: str, voice: str = "joe", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`."""
        spoken = subprocess.run(
            [self._espeak, "-q", "--ipa", "-v", "en-us", "--", text], capture_output=True, text=True, check=True
        ).stdout
        numbers = [*self._numbers["^"], *self._numbers["_"]]
        for phoneme in unicodedata.normalize("NFD", " ".join(spoken.split())):
            if phoneme in self._numbers:
                numbers += [*self._numbers[phoneme], *self._numbers["_"]]
        numbers += self._numbers["$"]
        noise, length, width = self._scales
        given = {
            "input": np.array([numbers], np.int64),
            "input_lengths": np.array([len(numbers)], np.int64),
            "scales": np.array([noise, length / speed, width], np.float32),
        }
        return resampled(np.asarray(self._session.run(None, given)[0], np.float32).reshape(-1), self._rate_hz)
