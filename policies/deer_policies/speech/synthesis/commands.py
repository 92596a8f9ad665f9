"""Engines that are programs of the system: espeak-ng, flite and festival, run once for each text."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import read_wav, resampled

WORDS_A_MINUTE = 165
"""Of espeak-ng at speed 1."""


def program(name: str) -> str:
    """Its path. Raises ConfigError if it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"the program {name} is not installed; on Debian and Ubuntu: apt install {name}")
    return found


def _run(command: list[str], out: Path, given: str = "") -> np.ndarray:
    """The sound that a command writes to the file. Raises ConfigError if it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not out.is_file():
        raise ConfigError(f"{command[0]} failed: {done.stderr.strip()[-200:]}")
    return read_wav(out)


class Espeak:
    """Formant synthesis, the hardest to understand. Voices are variants of English, some with a speaker: en-us+f3.

    British English is `en` here: of en-gb with a speaker, espeak-ng 1.51 leaves out the speaker and does not say so.
    """

    voices: tuple[str, ...] = (
        *("en-us", "en-gb", "en-gb-scotland", "en-us+f2", "en-us+f4", "en-us+m3", "en-us+m7", "en+f3", "en+m1"),
        *("en+croak", "en-029+f5", "en-gb-x-rp+m5", "en-gb-x-gbclan", "en-gb-x-gbcwmd+m2", "en-029+m4", "en-us+f5"),
        *("en-us+m1", "en-us+m6", "en-us+klatt2", "en-gb-x-rp+f1", "en-gb-scotland+f2", "en-gb-scotland+m4"),
        *("en-us+f1", "en-us+adam", "en+Alicia", "en-us+Andrea", "en-gb-x-rp+Andy", "en-us+Annie", "en+anika"),
        *("en-us+announcer", "en-029+belinda", "en-us+benjamin", "en+boris", "en-gb-scotland+caleb", "en-us+david"),
        *("en-gb-x-rp+ed", "en-us+edward", "en+gustave", "en-us+iven3", "en-gb-x-rp+linda", "en-us+max"),
        *("en-029+michael", "en-us+quincy", "en+rob", "en-us+robert", "en-gb-x-gbclan+steph2", "en-us+travis"),
        *("en+victor", "en-us+zac", "en-us+Gene2", "en+Jacky", "en-us+Lee", "en-029+Marco", "en-us+Mike"),
        *("en+Storm", "en-us+shelby", "en-gb-x-gbcwmd+klatt4"),
    )

    def __init__(self) -> None:
        self._program = program("espeak-ng")

    def say(self, text: str, voice: str = "en-us", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "said.wav"
            rate = str(round(WORDS_A_MINUTE * speed))
            return _run([self._program, "-v", voice, "-s", rate, "-w", str(out), "--", text], out)


class Flite:
    """Small voices of recorded diphones and clusters."""

    voices: tuple[str, ...] = ("slt", "rms", "awb", "kal16")

    def __init__(self) -> None:
        self._program = program("flite")

    def say(self, text: str, voice: str = "slt", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "said.wav"
            stretch = f"duration_stretch={1.0 / speed:.3f}"
            return _run([self._program, "-voice", voice, "--setf", stretch, "-t", text, "-o", str(out)], out)


class Festival:
    """The voice slt made by a hidden Markov model."""

    voices: tuple[str, ...] = ("slt_arctic_hts",)

    def __init__(self) -> None:
        self._program = program("text2wave")

    def say(self, text: str, voice: str = "slt_arctic_hts", speed: float = 1.0) -> np.ndarray:
        """See `Synthesiser`. Its own pace can't be changed: the pitch goes with the speed."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "said.wav"
            command = [self._program, "-eval", f"(voice_cmu_us_{voice})", "-o", str(out)]
            said = _run(command, out, text)
        return said if speed == 1.0 else resampled(said, round(100 * speed), 100)
