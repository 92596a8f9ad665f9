"""Turns camera images and joint states into complete, checked frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from deer_policies.errors import ConfigError
from deer_policies.interfaces import PolicyInfo
from deer_ros.control.arm import ArmParameters
from deer_ros.control.frame_sync import FrameSync
from deer_ros.conversions import stamp_to_s
from deer_ros.quality import FRAMES
from deer_ros.robot_frame import CHANNELS, GRIPPER, JOINTS, STATIC, TOPICS, FrameParts, RobotFrame

if TYPE_CHECKING:
    from rclpy.node import Node

QUIET_S = 5.0
"""The same trouble is not logged again within this time."""


@dataclass(frozen=True)
class ReceivedFrame:
    """A complete frame as it came in.

    Attributes:
        frame: its content.
        received_s: when the oldest part came in, of the monotonic clock.
    """

    frame: RobotFrame
    received_s: float


@dataclass(frozen=True)
class FrameSettings:
    """How far apart the stamps of one frame may lie, and whether lost messages are asked for again."""

    slop_s: float
    reliable: bool


class FrameInput:
    """Subscribes to cameras and joint states, calls `on_frame` for each complete frame, and drops what can't be used.

    `trouble` tells in words what was wrong with the last message that was dropped, until a complete frame comes.
    """

    def __init__(
        self,
        node: Node,
        info: PolicyInfo,
        arm: ArmParameters,
        settings: FrameSettings,
        on_frame: Callable[[ReceivedFrame], None],
    ) -> None:
        self.trouble = ""
        self.frames = 0
        self._told_s: dict[str, float] = {}
        self._node = node
        self._parts = FrameParts(arm, info)
        self._on_frame = on_frame
        self._sync = FrameSync(CHANNELS, settings.slop_s)
        quality = FRAMES if settings.reliable else qos_profile_sensor_data
        self._subscriptions = [
            node.create_subscription(kind, TOPICS[channel], partial(self._on_message, channel), quality)
            for channel, kind in ((JOINTS, JointState), (GRIPPER, Image), (STATIC, Image))
        ]

    def close(self) -> None:
        """Ends the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_message(self, channel: str, message: Image | JointState) -> None:
        try:
            stamp, value = self._parts.value(channel, message)
        except ConfigError as error:
            self._drop(f"{TOPICS[channel]}: {error}")
            return
        frames = self._sync.add(channel, stamp_to_s(stamp), (stamp, value), time.monotonic())
        if frames is not None:
            self.trouble = ""
            self.frames += not frames.repeated
            self._on_frame(ReceivedFrame(self._parts.frame(frames.values), frames.received_s))

    def _drop(self, trouble: str) -> None:
        """Remembers the trouble, and logs it unless it was logged lately."""
        self.trouble = trouble
        now_s = time.monotonic()
        if now_s - self._told_s.get(trouble, -np.inf) > QUIET_S:
            self._node.get_logger().warning(f"dropped a message on {trouble}")
            self._told_s = {text: told_s for text, told_s in self._told_s.items() if now_s - told_s < QUIET_S}
            self._told_s[trouble] = now_s
