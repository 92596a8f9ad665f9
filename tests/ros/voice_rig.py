"""A node that hears or speaks in a thread of the test, sound for it, and what comes back."""

import numpy as np
from deer_msgs.msg import AudioChunk, SafetyState, StopWord, VoiceCommand
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from deer_ros import graph
from deer_ros.nodes.sound import chunk_message
from deer_ros.quality import COMMANDS, LATCHED, SOUND
from tests.ros.node_rig import NodeRig

PIECE = np.full(320, 0.1, np.float32)
LOUD = np.full(320, 0.9, np.float32)


class VoiceRig(NodeRig):
    """Sends sound, and keeps what comes back."""

    def connect(self, node):
        self.received = {topic: [] for topic in (graph.STOP_WORD, graph.HEARING, graph.SAY, graph.VOICE_COMMAND)}
        kinds = {graph.STOP_WORD: StopWord, graph.HEARING: Bool, graph.SAY: String, graph.VOICE_COMMAND: VoiceCommand}
        for topic, kind in kinds.items():
            quality = LATCHED if kind is Bool else COMMANDS
            node.create_subscription(kind, topic, self.received[topic].append, quality)
        self.sound = node.create_publisher(AudioChunk, graph.AUDIO_INPUT, SOUND)
        self.hearing = node.create_publisher(Bool, graph.HEARING, LATCHED)
        self.talk = node.create_publisher(Bool, graph.TALK, COMMANDS)
        self.speaking = node.create_publisher(Bool, graph.SPEAKING, LATCHED)
        self.safety = node.create_publisher(SafetyState, graph.SAFETY_STATE, LATCHED)
        self.stops = 0
        self.sent = 0

    def serve_stop(self):
        def stop(request, response):
            self.stops += 1
            response.success = True
            return response

        return self.client.node.create_service(Trigger, graph.SAFETY_STOP, stop)

    def send(self, samples, skip=0):
        self.sent += skip
        self.sound.publish(chunk_message(samples, self.sent, self.client.node.get_clock().now().to_msg()))
        self.sent += len(samples)

    def last(self, topic):
        return self.received[topic][-1] if self.received[topic] else None
