"""Sound as numbers: files, rates, log-mel features in one piece and as they come in, rooms and noises."""

import wave

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ, from_pcm, power, read_wav, resampled, to_pcm, trimmed, write_wav
from deer_policies.speech.features import HOP, NARROW, WIDE, LogMelStream
from deer_policies.speech.scenes.noises import NOISES, babble, coloured
from deer_policies.speech.scenes.rooms import impulse_response, in_room, mixed


def tone(hz, seconds=1.0, rate_hz=RATE_HZ):
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz).astype(np.float32) * 0.5


def write_frames(path, channels, width, rate_hz, data):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(data)


def test_samples_come_back_from_a_file(tmp_path):
    write_wav(tmp_path / "a" / "tone.wav", tone(440))
    np.testing.assert_allclose(read_wav(tmp_path / "a" / "tone.wav"), tone(440), atol=1 / 32768)
    assert (to_pcm(np.array([2.0, -2.0])) == [32767, -32768]).all()
    np.testing.assert_array_equal(to_pcm(from_pcm(np.arange(-9, 9, dtype=np.int16))), np.arange(-9, 9))


def test_two_channels_at_another_rate_become_one_at_ours(tmp_path):
    left = to_pcm(tone(440, rate_hz=44_100))
    write_frames(tmp_path / "stereo.wav", 2, 2, 44_100, np.stack([left, np.zeros_like(left)], 1).tobytes())
    samples = read_wav(tmp_path / "stereo.wav")
    assert len(samples) == RATE_HZ
    np.testing.assert_allclose(samples[1000:-1000], tone(440)[1000:-1000] / 2, atol=2e-3)


def test_what_is_no_sound_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ConfigError, match="give a WAV file"):
        read_wav(tmp_path / "text.wav")
    write_frames(tmp_path / "eight.wav", 1, 1, RATE_HZ, bytes(100))
    with pytest.raises(ConfigError, match="8 bits"):
        read_wav(tmp_path / "eight.wav")


def test_resampling_takes_away_what_the_lower_rate_cannot_hold():
    assert power(resampled(tone(15_000, rate_hz=48_000), 48_000)) < 1e-4 * power(tone(440))


def test_silence_at_the_ends_is_cut_off():
    quiet = np.zeros(RATE_HZ // 2, np.float32)
    assert abs(len(trimmed(np.concatenate([quiet, tone(300, 0.3), quiet]))) - 0.3 * RATE_HZ) <= 320
    assert len(trimmed(quiet)) == 0


@pytest.mark.parametrize("mel", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_tone_is_in_its_band(mel):
    centres = mel.filters.argmax(0) * RATE_HZ / 512
    for hz in (200, 500, 1000, 2000, 3500):
        band = int(mel.of(tone(hz)).mean(0).argmax())
        assert abs(centres[band] - hz) < 0.15 * hz + 40
    assert mel.of(np.zeros(len(mel.window) - 1, np.float32)).shape == (0, mel.bands)


def test_narrow_features_are_those_of_the_speech_embedding():
    """Recorded from the TFLite library of pyopen-wakeword 1.1.0, whose floor is lower."""
    wanted = [11.2766, 11.0305, 8.5585, 8.8753, 11.0862, 11.2466, 9.7237, 6.4508, 6.1151, 5.0523, 5.1389, 4.6951]
    at_s = np.arange(1760) / RATE_HZ
    sound = sum(0.1 * np.sin(2 * np.pi * hz * at_s) for hz in (150, 440, 1234, 2500, 3600))
    found = NARROW.of(sound)
    assert found.shape == (8, 32)
    np.testing.assert_allclose(found[3, :12], wanted, atol=0.005)


@pytest.mark.parametrize("mel", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("size", [1, 160, 320, 777])
def test_features_are_the_same_piece_by_piece(size, mel):
    samples = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    stream = LogMelStream(mel)
    found = np.concatenate([stream.push(samples[at : at + size]) for at in range(0, len(samples), size)])
    np.testing.assert_allclose(found, mel.of(samples), rtol=1e-5)
    assert len(found) == (len(samples) - len(mel.window)) // HOP + 1


@pytest.mark.parametrize("name", list(NOISES))
def test_noises_are_sound_and_the_same_for_a_seed(name):
    first, again = (NOISES[name](RATE_HZ, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (RATE_HZ,)
    assert np.isfinite(first).all()
    assert power(first) > 1e-6
    np.testing.assert_array_equal(first, again)


def test_noise_falls_with_frequency_as_its_slope_says():
    spectrum = np.abs(np.fft.rfft(coloured(1 << 16, np.random.default_rng(0), 2.0))) ** 2
    assert spectrum[400:800].mean() / spectrum[4000:8000].mean() == pytest.approx(100, rel=0.4)


def test_babble_is_made_of_voices():
    made = babble(RATE_HZ, np.random.default_rng(0), [tone(300), tone(500)], 2)
    spectrum = np.abs(np.fft.rfft(made))
    assert {int(at) for at in np.argsort(spectrum)[-2:]} <= {299, 300, 301, 499, 500, 501}


def test_a_room_keeps_the_direct_sound_and_dies_away():
    response = impulse_response(np.random.default_rng(0), 0.4, 6.0)
    assert response[0] == 1.0
    tail = np.square(response[1:])
    assert tail.sum() == pytest.approx(10 ** (-0.6), rel=0.01)
    assert tail[: len(tail) // 2].sum() > 100 * tail[len(tail) // 2 :].sum()
    click = np.zeros(RATE_HZ, np.float32)
    click[100] = 1.0
    assert in_room(click, response).argmax() == 100


@pytest.mark.parametrize("ratio_db", [20.0, 0.0])
def test_noise_is_as_much_weaker_as_asked(ratio_db):
    speech, noise = tone(440), np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    loud = speech[np.square(speech) > 1e-3 * 0.25]
    added = mixed(speech, noise, ratio_db) - speech
    assert 10 * np.log10(power(loud) / power(added)) == pytest.approx(ratio_db, abs=0.1)
    pauses = np.concatenate([speech, np.zeros(9 * RATE_HZ, np.float32)])
    added = mixed(pauses, np.tile(noise, 10), ratio_db) - pauses
    assert 10 * np.log10(power(loud) / power(added)) == pytest.approx(ratio_db, abs=0.1), "pauses do not count"
