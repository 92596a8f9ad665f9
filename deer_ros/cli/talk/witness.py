"""Hears and sees everything that happens in the demonstration, with the time of each thing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deer_ros import graph
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.conversions import joint_positions
from deer_ros.quality import COMMANDS, FRAMES, LATCHED, SOUND

ARM_NAMES = tuple(f"panda_joint{index}" for index in range(1, 8))
MOVING_M = 0.004
"""The tool moves if it is so far from where it was a while ago."""


@dataclass
class Witness:
    """What was heard and seen; all times are of the monotonic clock, in s.

    Attributes:
        transcripts, commands, stops: messages, each with when it came.
        said: sentences of the robot.
        voice: samples of the robot's voice, each piece with when it came.
        states: of the safety node: name and reason.
        positions: of the tool: time, x, y, z in m.
        speaking: whether the robot speaks.
        spoken: how many sentences it has spoken to the end.
    """

    transcripts: list[tuple[float, Any]] = field(default_factory=list)
    commands: list[tuple[float, Any]] = field(default_factory=list)
    stops: list[tuple[float, Any]] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)
    voice: list[tuple[float, np.ndarray]] = field(default_factory=list)
    states: list[tuple[float, str, str]] = field(default_factory=list)
    positions: list[tuple[float, float, float, float]] = field(default_factory=list)
    speaking: bool = False
    spoken: int = 0

    def listen(self, client: Any) -> None:
        """From now on, over a `StackClient`."""
        from deer_msgs.msg import AudioChunk, SpeechTranscript, StopWord, VoiceCommand
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool, String

        node = client.node
        self._geometry = ArmGeometry()
        for kind, topic, kept in (
            (SpeechTranscript, graph.TRANSCRIPT, self.transcripts),
            (VoiceCommand, graph.VOICE_COMMAND, self.commands),
            (StopWord, graph.STOP_WORD, self.stops),
        ):
            node.create_subscription(
                kind, topic, lambda message, kept=kept: kept.append((time.monotonic(), message)), COMMANDS
            )
        node.create_subscription(String, graph.SAY, self._on_said, COMMANDS)
        node.create_subscription(AudioChunk, graph.AUDIO_OUTPUT, self._on_voice, SOUND)
        node.create_subscription(Bool, graph.SPEAKING, self._on_speaking, LATCHED)
        node.create_subscription(JointState, graph.JOINT_STATES, self._on_joints, FRAMES)
        client.on_safety_state(lambda report: self.states.append((time.monotonic(), report.state, report.reason)))

    def moved_m(self, since_s: float) -> float:
        """How far the tool is from where it was then."""
        after = [position for position in list(self.positions) if position[0] >= since_s]
        return float(np.linalg.norm(np.subtract(after[-1][1:], after[0][1:]))) if len(after) > 1 else 0.0

    def stands_from(self, since_s: float) -> float | None:
        """When the tool moved for the last time after that; None if it did not."""
        after = np.array([position for position in list(self.positions) if position[0] >= since_s])
        if len(after) < 2:
            return None
        steps = np.linalg.norm(np.diff(after[:, 1:], axis=0), axis=1)
        moved = np.flatnonzero(steps > 1e-4)
        return float(after[moved[-1] + 1, 0]) if len(moved) else since_s

    def _on_said(self, message: Any) -> None:
        self.said.append((time.monotonic(), message.data))

    def _on_voice(self, message: Any) -> None:
        self.voice.append((time.monotonic(), np.asarray(message.samples, np.float32) / 32768))

    def _on_speaking(self, message: Any) -> None:
        self.spoken += self.speaking and not message.data
        self.speaking = message.data

    def _on_joints(self, message: Any) -> None:
        tool, _ = self._geometry.tcp_pose(joint_positions(message, ARM_NAMES))
        self.positions.append((time.monotonic(), *tool.tolist()))
