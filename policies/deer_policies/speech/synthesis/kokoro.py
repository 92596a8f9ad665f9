"""Kokoro-82M: 54 voices, the most natural ones here, and slow on a CPU (Apache-2.0; weights by `deer models fetch`)."""

from __future__ import annotations

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.model_store.store import ModelStore
from deer_policies.speech.audio import resampled

MODEL = "kokoro-82m"
RATE_HZ = 24_000
STYLE_DIM = 256
LONGEST = 500
"""Phonemes of one sentence."""
BRITISH = "b"
"""How the names of British voices begin."""
TRIES = 8


class Kokoro:
    """Voices are called as upstream: the first letter is the language they come from, the second f or m.

    Names with a comma between them, as upstream has it, are one voice more, the mean of theirs: af_bella,am_adam.

    The phonemes are Hibari's, which has the same alphabet and is American; voices of other languages speak English with
    an accent.
    """

    def __init__(self) -> None:
        import onnxruntime
        from hibari import Hibari as Phonemes

        folder = ModelStore().path(MODEL)
        self.voices: tuple[str, ...] = tuple(sorted(path.stem for path in (folder / "voices").glob("*.bin")))
        self._folder = folder
        self._styles: dict[str, np.ndarray] = {}
        self._phonemes = Phonemes(voice="heart")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / "onnx" / "model_fp16.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def say(self, text: str, voice: str = "af_heart", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`."""
        sentences = self._phonemes.phonemize(text)
        if all(name.startswith(BRITISH) for name in voice.split(",")):
            sentences = [british(phonemes) for phonemes in sentences]
        parts = [self._sentence(phonemes, voice, speed) for phonemes in sentences]
        return resampled(np.concatenate(parts or [np.zeros(0, np.float32)]), RATE_HZ)

    def _sentence(self, phonemes: str, voice: str, speed: float) -> np.ndarray:
        numbers = self._phonemes.ids(phonemes)[: LONGEST + 2]
        # A style vector for each length.
        style = np.mean([self._style(name)[len(numbers) - 2] for name in voice.split(",")], axis=0)
        # In half precision some texts overflow at some speeds; at a speed very near they do not.
        for attempt in range(TRIES):
            given = {
                "input_ids": np.array([numbers], np.int64),
                "style": style,
                "speed": np.array([speed * 1.01**attempt], np.float32),
            }
            said = np.asarray(self._session.run(None, given)[0], np.float32).reshape(-1)
            if np.isfinite(said).all():
                return said
        raise ConfigError(f"kokoro's voice {voice} can't say {phonemes!r} at speed {speed:g}; take another voice")

    def _style(self, voice: str) -> np.ndarray:
        """(lengths, 1, STYLE_DIM) of one voice. Raises ConfigError if there is no such voice."""
        if voice not in self._styles:
            if voice not in self.voices:
                raise ConfigError(f"kokoro has no voice {voice!r}; it has {', '.join(self.voices)}")
            data = np.fromfile(self._folder / "voices" / f"{voice}.bin", np.float32)
            self._styles[voice] = data.reshape(-1, 1, STYLE_DIM)
        return self._styles[voice]


def british(phonemes: str) -> str:
    """American phonemes with the vowels of 'stop' and 'start' that British voices know; with the others they say
    'starp'."""
    return (
        phonemes.replace("\u0251\u0279", "\u0251\u02d0")
        .replace("\u0251", "\u0252")
        .replace("\u0252\u02d0", "\u0251\u02d0")
    )
