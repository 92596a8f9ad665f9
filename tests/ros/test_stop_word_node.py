"""The stop word node over ROS, with a network that takes anything loud for the word."""

import time

import numpy as np
import pytest
from deer_msgs.msg import AudioChunk

from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.spotting.spotter import Stop
from deer_ros import graph
from deer_ros.nodes import stop_word_node
from deer_ros.nodes.sound import SoundStream, chunk_message
from deer_ros.nodes.stop_word_node import StopWordNode
from tests.ros.node_rig import wait
from tests.ros.voice_rig import LOUD, PIECE


class LoudSpotter:
    """Takes anything loud for the stop word."""

    def __init__(self):
        self.resets = 0

    def reset(self):
        self.resets += 1

    def push(self, samples):
        return Stop(0.0, 0.9) if np.abs(samples).max(initial=0) > 0.5 else None


@pytest.fixture
def stop_rig(make_voice_rig, monkeypatch):
    spotter = LoudSpotter()
    monkeypatch.setattr(stop_word_node.Spotter, "load", lambda path, threshold: spotter)
    rig = make_voice_rig(StopWordNode)
    rig.spotter = spotter
    return rig


def test_the_stop_word_reaches_the_safety_node(stop_rig):
    stop_rig.serve_stop()
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    for _ in range(5):
        stop_rig.send(PIECE)
    wait(lambda: stop_rig.last(graph.HEARING) is not None and stop_rig.last(graph.HEARING).data)
    assert stop_rig.stops == 0
    began_s = time.monotonic()
    stop_rig.send(LOUD)
    wait(lambda: stop_rig.stops == 1)
    assert time.monotonic() - began_s < 0.3
    wait(lambda: stop_rig.received[graph.STOP_WORD])
    assert stop_rig.last(graph.STOP_WORD).sample == stop_rig.sent


def test_a_stop_is_sent_again_until_it_is_answered(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.send(PIECE)
    stop_rig.send(LOUD)
    wait(lambda: stop_rig.received[graph.STOP_WORD])
    time.sleep(0.3)
    stop_rig.serve_stop()
    wait(lambda: stop_rig.stops >= 1)
    time.sleep(0.3)
    stops = stop_rig.stops
    time.sleep(0.3)
    assert stop_rig.stops == stops, "once answered, it is not sent again"


def test_without_sound_nobody_is_said_to_listen(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.send(PIECE)
    wait(lambda: stop_rig.last(graph.HEARING) is not None and stop_rig.last(graph.HEARING).data)
    wait(lambda: not stop_rig.last(graph.HEARING).data)


def test_a_gap_is_silence_and_a_restart_a_new_beginning(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.send(PIECE)
    wait(lambda: stop_rig.spotter.resets == 1)
    stop_rig.send(PIECE, skip=640)
    stop_rig.sent = 0
    stop_rig.send(PIECE)
    wait(lambda: stop_rig.spotter.resets == 2)
    assert stop_rig.node._stream.lost == 640


def test_sound_of_another_rate_is_an_error_that_says_so(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.sound.publish(AudioChunk(sample_rate_hz=44100, samples=[0] * 100))
    wait(lambda: "44100 Hz; it must have 16000" in stop_rig.node._trouble)


def test_a_stream_joins_pieces():
    stream, now = SoundStream(), AudioChunk().header.stamp
    assert len(stream.push(chunk_message(PIECE, 100, now))) == 320
    assert len(stream.push(chunk_message(PIECE, 420, now))) == 320
    joined = stream.push(chunk_message(PIECE, 1000, now))
    assert (joined[:260] == 0).all()
    assert len(joined) == 580
    assert (stream.begun, stream.lost) == (1, 260)
    assert len(stream.push(chunk_message(PIECE, 10 * RATE_HZ, now))) == 320
    assert stream.begun == 2
