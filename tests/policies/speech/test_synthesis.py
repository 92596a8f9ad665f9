"""Voices of the engines: each another one, and blends."""

import numpy as np
import pytest

from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.speech.spotting import corpus
from deer_policies.speech.synthesis.engine import make_synthesiser


def engine(name):
    try:
        return make_synthesiser(name)
    except (CheckpointError, ConfigError) as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", ["espeak", "flite", "pico"])
def test_no_two_voices_of_an_engine_are_the_same(name):
    synthesiser = engine(name)
    said = {}
    for voice in synthesiser.voices:
        same = said.setdefault(synthesiser.say("stop", voice).tobytes(), voice)
        assert same == voice, f"{voice} sounds like {same}"
    assert len(said) == len(synthesiser.voices) > 1


def test_a_blend_of_kokoros_voices_is_another_voice():
    kokoro = engine("kokoro")
    one, other, both = (kokoro.say("stop", voice) for voice in ("af_bella", "am_adam", "af_bella,am_adam"))
    lengths = [len(samples) for samples in (one, other, both)]
    least = min(lengths)
    for samples in (one, other):
        assert np.abs(samples[:least] - both[:least]).max() > 0.05
    with pytest.raises(ConfigError, match="kokoro has no voice 'nobody'"):
        kokoro.say("stop", "af_bella,nobody")


def test_british_voices_get_british_vowels():
    from deer_policies.speech.synthesis.kokoro import british

    assert (
        british("st\u02c8\u0251p \u00f0\u0259 k\u02c8\u0251\u0279")
        == "st\u02c8\u0252p \u00f0\u0259 k\u02c8\u0251\u02d0"
    )
    kokoro = engine("kokoro")
    given = []
    kokoro._sentence = lambda phonemes, voice, speed: given.append(phonemes) or np.zeros(10, np.float32)
    for voice in ("bm_george", "am_adam", "bm_george,am_adam"):
        kokoro.say("stop", voice)
    assert given == ["st\u02c8\u0252p", "st\u02c8\u0251p", "st\u02c8\u0251p"]


def test_blends_are_of_voices_to_train_on_and_none_twice():
    names = [f"voice{at}" for at in range(12)]
    found = corpus.blends(names)
    assert len(set(found)) == len(found) == corpus.BLENDS
    assert all(set(blend.split(",")) <= set(names) and len(set(blend.split(","))) == 2 for blend in found)
    assert found == corpus.blends(names)
