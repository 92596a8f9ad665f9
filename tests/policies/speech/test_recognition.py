"""Speech to text: utterances in running sound, the engine with a grammar, and Whisper where its weights are."""

import numpy as np
import pytest

from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.model_store.store import ModelStore
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.recognition.engine import make_recogniser
from deer_policies.speech.recognition.segmenting import CHUNK, Segmenter, SegmentSettings, Silero
from deer_policies.speech.synthesis.engine import ENGINES, make_synthesiser

SENTENCES = ("open the drawer", "close the drawer", "push the red block to the left", "turn on the green light")
SETTINGS = SegmentSettings(end_s=0.32)


class Loud:
    """Speech is what is loud."""

    def probability(self, samples):
        return float(np.abs(samples).max() > 0.5)

    def reset(self):
        pass


def sound(*parts):
    """Loud for the first, third, ... so many chunks, quiet for the others."""
    return np.concatenate([np.full(CHUNK * count, 0.9 * (at % 2 == 0), np.float32) for at, count in enumerate(parts)])


@pytest.mark.parametrize("size", [160, 512, 5000])
def test_an_utterance_begins_with_speech_and_ends_with_silence(size):
    segmenter, samples = Segmenter(Loud(), SETTINGS), sound(0, 20, 30, 40)
    found = [each for at in range(0, len(samples), size) for each in segmenter.push(samples[at : at + size])]
    assert len(found) == 1
    before, silence = round(SETTINGS.before_s * RATE_HZ / CHUNK), 10
    assert (found[0].samples != 0).sum() == 30 * CHUNK
    assert found[0].speech_end_s == pytest.approx(50 * CHUNK / RATE_HZ)
    assert len(found[0].samples) < (before + 30 + silence + 1) * CHUNK


def test_a_click_is_no_utterance_and_a_short_pause_does_not_end_one():
    segmenter = Segmenter(Loud(), SETTINGS)
    assert segmenter.push(sound(1, 40)) == []
    (found,) = segmenter.push(sound(10, 5, 10, 40))
    assert (found.samples != 0).sum() == 20 * CHUNK


def test_what_does_not_end_is_ended_and_so_is_what_is_asked_to():
    segmenter = Segmenter(Loud(), SegmentSettings(longest_s=1.0))
    assert len(segmenter.push(sound(70))) == 2
    assert segmenter.speaking
    assert segmenter.finish() is not None
    assert not segmenter.speaking
    assert segmenter.finish() is None


@pytest.fixture(scope="module")
def pico():
    return make_synthesiser("pico")


def spoken(pico, text):
    silence = np.zeros(RATE_HZ // 2, np.float32)
    return np.concatenate([silence, pico.say(text, "en-GB"), silence, silence])


def test_voice_activity_finds_speech_and_nothing_in_noise(pico):
    segmenter = Segmenter(Silero(), SegmentSettings())
    (found,) = segmenter.push(spoken(pico, "open the drawer"))
    assert 0.9 < len(found.samples) / RATE_HZ < 2.5
    noise = 0.05 * np.random.default_rng(0).standard_normal(3 * RATE_HZ).astype(np.float32)
    assert Segmenter(Silero(), SegmentSettings()).push(noise) == []


@pytest.fixture(scope="module")
def grammar():
    return make_recogniser("grammar", SENTENCES)


@pytest.mark.parametrize("text", SENTENCES)
def test_the_grammar_hears_the_sentences_that_it_knows(grammar, pico, text):
    transcript = grammar.transcribe(spoken(pico, text))
    assert transcript.text == text
    assert transcript.confidence > 0.3


def test_the_grammar_is_less_sure_of_what_only_sounds_like_it(grammar, pico):
    right = grammar.transcribe(spoken(pico, "open the drawer")).confidence
    for text in ("over the floor", "what is the weather today", "hope and glory"):
        found = grammar.transcribe(spoken(pico, text))
        assert found.confidence < right
        assert found.text == "" or found.confidence >= 0.4


def test_silence_is_nothing(grammar):
    assert grammar.transcribe(np.zeros(RATE_HZ, np.float32)).confidence < 0.3


def test_what_is_missing_is_told_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("DEER_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"deer models fetch whisper-tiny\.en"):
        make_recogniser("whisper", SENTENCES)
    with pytest.raises(ConfigError, match="there are whisper, grammar"):
        make_recogniser("parrot", SENTENCES)
    with pytest.raises(ConfigError, match="there are hibari"):
        make_synthesiser("parrot")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt install espeak-ng"):
        make_synthesiser("espeak")
    assert set(ENGINES) >= {"hibari", "pico"}


@pytest.mark.parametrize("name", ["hibari", "pico"])
def test_engines_without_downloads_speak(name):
    engine = make_synthesiser(name)
    slow, fast = (engine.say("red block, into the drawer", engine.voices[0], speed) for speed in (1.0, 1.5))
    assert 0.8 < len(slow) / RATE_HZ < 4
    assert len(fast) < 0.85 * len(slow)
    assert slow.dtype == np.float32
    assert 0.05 < np.abs(slow).max() <= 1.0


@pytest.mark.skipif(
    bool(ModelStore().missing("whisper-tiny.en")), reason="no weights: deer models fetch whisper-tiny.en"
)
def test_whisper_gives_readings_with_probabilities(pico):
    whisper = make_recogniser("whisper", SENTENCES)
    transcript = whisper.transcribe(spoken(pico, "push the red block to the left"))
    assert transcript.text == "push the red block to the left"
    assert sum(each.probability for each in transcript.alternatives) == pytest.approx(1.0)
    assert transcript.confidence > 0.5
    silence = whisper.transcribe(np.zeros(2 * RATE_HZ, np.float32))
    assert silence.confidence < 0.5
