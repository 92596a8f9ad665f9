"""Turns camera images and joint states into complete, checked frames."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from deer_policies.errors import ConfigError
from deer_policies.interfaces import PolicyInfo
from deer_ros import network
from deer_ros.control.arm import ArmParameters
from deer_ros.control.camera_fit import CameraFit
from deer_ros.control.frame_sync import FrameSet, FrameSync
from deer_ros.control.frozen_view import FrozenView
from deer_ros.control.rate_meter import RateMeter
from deer_ros.conversions import stamp_to_ns, stamp_to_s
from deer_ros.quality import FRAMES
from deer_ros.robot_frame import CHANNELS, GRIPPER, JOINTS, STATIC, TOPICS, FrameParts, RobotFrame, split_joints

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
    """What frames are made of.

    Attributes:
        slop_s: how far apart the stamps of one frame may lie.
        reliable: whether lost messages are asked for again.
        static_size, gripper_size: (rows, columns) that the cameras send; (0, 0) is the policy's own size.
    """

    slop_s: float
    reliable: bool
    static_size: tuple[int, int] = (0, 0)
    gripper_size: tuple[int, int] = (0, 0)


class FrameInput:
    """Subscribes to cameras and joint states, calls `on_frame` for each complete frame, and drops what can't be used.

    A frame whose pictures come of a camera that is frozen is dropped; see `FrozenView`.

    Attributes:
        frozen_view_m: a camera is frozen if its pixels stay the same while the tool moves further than this.
        parts: what makes frames of messages, and observations of frames.
        trouble: what was wrong with the last message that was dropped, in words, until a complete frame comes.
        frames: counts new ones that were complete and could be used.
        dropped: messages and frames that could not, by reason.

    Raises:
        ConfigError: if a camera's images are smaller than the policy's.
    """

    def __init__(
        self,
        node: Node,
        info: PolicyInfo,
        arm: ArmParameters,
        settings: FrameSettings,
        frozen_view_m: float,
        on_frame: Callable[[ReceivedFrame], None],
    ) -> None:
        self.frozen_view_m = frozen_view_m
        self.trouble = ""
        self.frames = RateMeter()
        self.dropped: Counter[str] = Counter()
        self._views = {channel: FrozenView(arm.geometry) for channel in (STATIC, GRIPPER)}
        self._told_s: dict[str, float] = {}
        self._node = node
        self._arm = arm
        fits = {
            STATIC: CameraFit("static", settings.static_size, info.static_shape[:2]),
            GRIPPER: CameraFit("gripper", settings.gripper_size, info.gripper_shape[:2]),
        }
        self.parts = FrameParts(arm, fits)
        frame_bytes = sum(3 * fit.camera[0] * fit.camera[1] for fit in fits.values())
        if trouble := network.receive_buffer_trouble(frame_bytes):
            node.get_logger().warning(trouble)
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
            stamp, value = self.parts.value(channel, message)
        except ConfigError as error:
            self._drop(f"{TOPICS[channel]}: {error}", f"{TOPICS[channel]} unusable")
            return
        frames = self._sync.add(channel, stamp_to_s(stamp), (stamp, value), time.monotonic())
        if frames is not None and not self._frozen(frames):
            self.trouble = ""
            if not frames.repeated:
                self.frames.note(time.monotonic())
            self._on_frame(ReceivedFrame(self.parts.frame(frames.values), frames.received_s))

    def _frozen(self, frames: FrameSet) -> bool:
        """Whether a camera shows the same pixels although the arm has moved."""
        joints_rad, _ = split_joints(self._arm, frames.values[JOINTS][1])
        moved_m = {}
        for channel, view in self._views.items():
            stamp, image = frames.values[channel]
            moved_m[TOPICS[channel]] = view.moved_m(stamp_to_ns(stamp), image, joints_rad)
        frozen = [topic for topic, way_m in moved_m.items() if way_m > self.frozen_view_m]
        if frozen:
            self._drop(
                f"{' and '.join(frozen)}: frozen: the same pixels although the tool has moved more than "
                f"{self.frozen_view_m:g} m (a simulated camera with nothing that moves in view: raise frozen_view_m)",
                f"{' and '.join(frozen)} frozen",
            )
        return bool(frozen)

    def _drop(self, trouble: str, reason: str) -> None:
        """Remembers the trouble, counts it, and logs it unless it was logged lately."""
        self.trouble = trouble
        self.dropped[reason] += 1
        now_s = time.monotonic()
        if now_s - self._told_s.get(trouble, -np.inf) > QUIET_S:
            self._node.get_logger().warning(f"dropped a message on {trouble}")
            self._told_s = {text: told_s for text, told_s in self._told_s.items() if now_s - told_s < QUIET_S}
            self._told_s[trouble] = now_s
