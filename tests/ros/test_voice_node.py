"""The voice node over ROS, with an engine that is made up."""

import numpy as np
from deer_msgs.msg import AudioChunk
from std_msgs.msg import Bool, String

from deer_policies.speech.audio import RATE_HZ
from deer_ros import graph
from deer_ros.nodes import voice_node
from deer_ros.nodes.voice_node import VoiceNode
from deer_ros.quality import COMMANDS, LATCHED, SOUND
from tests.ros.node_rig import wait


class Engine:
    """Says a tenth of a second for each word."""

    voices = ("one",)

    def say(self, text, voice, speed=1.0):
        return np.full(int(0.1 * RATE_HZ) * len(text.split()), 0.5, np.float32)


def test_sentences_are_said_one_after_the_other(make_voice_rig, monkeypatch):
    monkeypatch.setattr(voice_node, "make_synthesiser", lambda name: Engine())
    rig = make_voice_rig(VoiceNode, output="topic")
    pieces, speaking = [], []
    rig.client.node.create_subscription(AudioChunk, graph.AUDIO_OUTPUT, pieces.append, SOUND)
    rig.client.node.create_subscription(Bool, graph.SPEAKING, lambda message: speaking.append(message.data), LATCHED)
    say = rig.client.node.create_publisher(String, graph.SAY, COMMANDS)
    rig.activate()
    wait(lambda: say.get_subscription_count() > 0 and rig.node._publisher.get_subscription_count() > 0)
    for number in range(8):
        say.publish(String(data=f"sentence {number}"))
    wait(lambda: speaking and not speaking[-1] and rig.node._waiting.empty() and rig.node._said >= 3)
    total = sum(len(piece.samples) for piece in pieces)
    assert total == rig.node._said * 3200
    assert rig.node._said + rig.node._dropped == 8
    assert rig.node._dropped >= 3, "nobody waits for old sentences"
    assert True in speaking
