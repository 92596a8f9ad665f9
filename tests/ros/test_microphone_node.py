"""The microphone node over ROS: a file as if it were heard, and devices that are not there."""

import time

import numpy as np
import pytest
from deer_msgs.msg import AudioChunk
from lifecycle_msgs.msg import Transition

from deer_policies.speech.audio import RATE_HZ, write_wav
from deer_ros import graph
from deer_ros.errors import StackError
from deer_ros.nodes import microphone_node, port_audio
from deer_ros.nodes.microphone_node import MicrophoneNode
from deer_ros.quality import SOUND
from tests.ros.node_rig import wait


def test_a_file_is_played_as_if_it_were_heard(make_voice_rig, tmp_path):
    samples = np.sin(np.arange(RATE_HZ // 2) / 5).astype(np.float32) * 0.5
    write_wav(tmp_path / "said.wav", samples)
    rig = make_voice_rig(MicrophoneNode, source="file", file=str(tmp_path / "said.wav"))
    pieces = []
    rig.client.node.create_subscription(AudioChunk, graph.AUDIO_INPUT, pieces.append, SOUND)
    wait(lambda: rig.node._publisher.get_subscription_count() > 0)
    rig.change(Transition.TRANSITION_CONFIGURE)
    began_s = time.monotonic()
    rig.change(Transition.TRANSITION_ACTIVATE)
    wait(lambda: len(pieces) * 320 > len(samples) + 1600)
    assert time.monotonic() - began_s > 0.5
    heard = np.concatenate([np.asarray(piece.samples) for piece in pieces]) / 32768
    np.testing.assert_allclose(heard[: len(samples)], samples, atol=1e-4)
    assert (heard[len(samples) :] == 0).all(), "then silence"


def test_a_file_or_a_device_that_is_not_there_is_told(make_voice_rig, monkeypatch, capfd):
    with pytest.raises(StackError, match="refused"):
        make_voice_rig(MicrophoneNode, source="file", file="/no/such.wav").change(Transition.TRANSITION_CONFIGURE)
    assert "can't be read as sound" in capfd.readouterr().err


def test_a_machine_without_a_microphone_is_told(make_voice_rig, monkeypatch, capfd):
    class Silent:
        PortAudioError = RuntimeError

        def __getattr__(self, name):
            raise RuntimeError(f"Error querying device -1 for {name}")

    monkeypatch.setattr(port_audio, "library", Silent)
    monkeypatch.setattr(microphone_node, "library", Silent)
    rig = make_voice_rig(MicrophoneNode)
    rig.change(Transition.TRANSITION_CONFIGURE)
    with pytest.raises(StackError, match="refused"):
        rig.change(Transition.TRANSITION_ACTIVATE)
    assert "source: file needs none" in capfd.readouterr().err
