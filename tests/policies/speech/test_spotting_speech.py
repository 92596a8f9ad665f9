"""Speech for the stop word: recordings of people, and clips that an engine may have garbled."""

from pathlib import Path

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, write_wav
from deer_policies.speech.spotting import corpus, listening, recordings
from deer_policies.speech.spotting.corpus import ALIKE_KIND, ALONE_KIND, FIRST_KIND, LAST_KIND, NOISE_KIND, OTHER_KIND
from deer_policies.speech.spotting.recordings import TEST, TRAINING, TUNING, part_of, read_recordings, spoken_part

SPEAKERS = [f"{number:08x}" for number in range(200)]


def recording(start_s, end_s, noise=0.0, seconds=1.0, frequency=900.0):
    """A tone from one time to another, in noise."""
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * frequency * time_s) * ((time_s >= start_s) & (time_s < end_s))
    return (0.5 * tone + noise * np.random.default_rng(0).standard_normal(len(tone))).astype(np.float32)


def of_part(part):
    return next(name for name in SPEAKERS if part_of(name) == part)


def test_everybody_is_in_one_part():
    shares = [sum(part_of(name) == part for name in SPEAKERS) / len(SPEAKERS) for part in (TRAINING, TUNING, TEST)]
    assert shares == pytest.approx([0.5, 0.15, 0.35], abs=0.07)
    assert sum(shares) == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.015])
def test_a_word_ends_where_it_ends_in_any_noise(noise):
    found = spoken_part(recording(0.3, 0.7, noise))
    before = int(recordings.BEFORE_S * RATE_HZ)
    assert len(found) == pytest.approx(before + 0.4 * RATE_HZ, abs=0.04 * RATE_HZ)
    assert np.abs(found[before + 400 : before + 800]).max() > 0.4


def test_a_plosive_belongs_to_its_word_and_a_knock_does_not():
    within, apart = (recording(0.2, 0.4) + recording(start, start + 0.05) for start in (0.55, 0.8))
    assert len(spoken_part(within)) / RATE_HZ == pytest.approx(recordings.BEFORE_S + 0.4, abs=0.04)
    assert len(spoken_part(apart)) / RATE_HZ == pytest.approx(recordings.BEFORE_S + 0.2, abs=0.04)


def test_nothing_is_said_where_there_is_nothing():
    assert len(spoken_part(np.zeros(RATE_HZ, np.float32))) == 0
    assert len(spoken_part(np.zeros(20, np.float32))) == 0


def test_the_folder_says_what_is_said(tmp_path):
    name = of_part(TRAINING)
    said = {"stop": (0.3, 0.7), "up": (0.2, 0.6), "_silence_": (0.0, 0.01)}
    for at, (word, (start_s, end_s)) in enumerate(said.items()):
        write_wav(tmp_path / "set" / word / f"{name}_nohash_0.wav", recording(start_s, end_s, 0.01, frequency=500 + at))
    write_wav(tmp_path / "set" / "clean" / f"{name}.wav", recording(0.5, 2.5, seconds=3.0))
    write_wav(tmp_path / "set" / "stop" / f"{of_part(TEST)}_nohash_1.wav", recording(0.1, 0.5))
    found = {clip.text: clip for clip in read_recordings([tmp_path], TRAINING)}
    kinds = {"stop": ALONE_KIND, "up": ALIKE_KIND, "_silence_": NOISE_KIND, "clean": OTHER_KIND}
    assert {text: clip.kind for text, clip in found.items()} == kinds
    assert len(found["clean"].samples) == 3 * RATE_HZ
    assert {clip.voice for clip in found.values()} == {f"people/{name}"}
    assert all(clip.recorded for clip in found.values())
    assert [clip.voice for clip in read_recordings([tmp_path], TEST)] == [f"people/{of_part(TEST)}"]
    assert read_recordings([tmp_path], TUNING) == []


def test_a_person_is_the_same_in_a_folder_of_mixed_words():
    names = ("stop/43fc47a7_nohash_0.wav", "_unknown_/dog_43fc47a7_nohash_1.wav")
    assert {recordings.speaker(Path(name)) for name in names} == {"43fc47a7"}
    assert recordings.speaker(Path("clean/0075d273-51bb.wav")) == "0075d273-51bb"


def test_a_recording_of_nothing_is_left_out(tmp_path):
    write_wav(tmp_path / "_silence_" / f"{of_part(TEST)}.wav", np.zeros(RATE_HZ, np.float32))
    assert read_recordings([tmp_path], TEST) == []


def test_copies_of_a_recording_are_one(tmp_path):
    for folder in ("one", "other"):
        write_wav(tmp_path / folder / "stop" / f"{of_part(TEST)}_nohash_0.wav", recording(0.3, 0.7))
    assert len(read_recordings([tmp_path / "one", tmp_path / "other"], TEST)) == 1


def test_a_folder_without_recordings_is_said(tmp_path):
    with pytest.raises(
        ConfigError, match=r"has no WAV files; give a folder of recordings, as WORD/SPEAKER_nohash_N\.wav"
    ):
        read_recordings([tmp_path], TEST)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (ALONE_KIND, "Stop!", True),
        (ALONE_KIND, "Stop. Stop.", True),
        (ALONE_KIND, "Stop it.", False),
        (ALONE_KIND, "Starb.", False),
        (LAST_KIND, "Please stop.", True),
        (LAST_KIND, "Please stop it.", False),
        (LAST_KIND, "Now stopping", False),
        (FIRST_KIND, "Stop the arm!", True),
        (FIRST_KIND, "You stop the arm", False),
        (FIRST_KIND, "", False),
    ],
)
def test_a_clip_is_understood_if_the_word_is_where_it_should_be(kind, text, wanted):
    assert listening.understood(kind, text) is wanted


def test_what_an_engine_garbled_is_left_out(tmp_path, monkeypatch):
    texts = [(ALONE_KIND, "stop!", 1.0), (LAST_KIND, "please stop.", 1.0), (OTHER_KIND, "open the drawer", 1.0)]
    corpus.speak(tmp_path, "pico", "en-US", texts)
    voice = [("pico", "en-US")]
    everything = ["stop!", "please stop.", "open the drawer"]
    assert [clip.text for clip in listening.read_understood(tmp_path, voice)] == everything, "it does not garble"
    monkeypatch.setattr(listening, "GARBLING", ("pico",))
    assert [clip.text for clip in listening.read_understood(tmp_path, voice)] == everything[2:], "nobody has listened"
    heard = []

    def listener(clip):
        heard.append(clip.text)
        return "stop it" if clip.text == "stop!" else "please stop"

    assert listening.listen(tmp_path, "pico", "en-US", listener)
    assert not listening.listen(tmp_path, "pico", "en-US", listener)
    assert heard == everything[:2], "each once, and only those with the word"
    assert [clip.text for clip in listening.read_understood(tmp_path, voice)] == everything[1:]
    corpus.speak(tmp_path, "pico", "en-US", [(ALONE_KIND, "stop.", 1.2), texts[2]])
    assert [clip.text for clip in listening.read_understood(tmp_path, voice)] == everything[2:], "nobody heard this one"
    assert listening.listen(tmp_path, "pico", "en-US", listener)
    assert heard[2:] == ["stop."]
