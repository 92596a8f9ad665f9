"""Turns camera images and joint states into complete, checked frames."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from deer_policies.errors import ConfigError
from deer_policies.interfaces import PolicyInfo, checked_image
from deer_ros import graph
from deer_ros.control.frame_sync import FrameSet, FrameSync
from deer_ros.control.frozen_view import FrozenView
from deer_ros.control.rate_meter import RateMeter
from deer_ros.conversions import image_to_rgb, joint_positions, stamp_to_ns, stamp_to_s
from deer_ros.parameters import ArmParameters
from deer_ros.quality import FRAMES

if TYPE_CHECKING:
    from rclpy.node import Node

QUIET_S = 5.0
"""The same trouble is not logged again within this time."""


@dataclass(frozen=True)
class RobotFrame:
    """What the robot saw and felt at one instant.

    Attributes:
        stamp_ns: of the static image, exact.
        stamp_s: the same in seconds.
        rgb_static, rgb_gripper: (rows, columns, 3) uint8, of the sizes that the policy takes.
        joints_rad: (7,) arm joints.
        opening_m: of the gripper.
        received_s: when the oldest part came in, of the monotonic clock.
        repeated: whether it was sent before.
    """

    stamp_ns: int
    stamp_s: float
    rgb_static: np.ndarray
    rgb_gripper: np.ndarray
    joints_rad: np.ndarray
    opening_m: float
    received_s: float
    repeated: bool


@dataclass(frozen=True)
class FrameSettings:
    """How far apart the stamps of one frame may lie, and whether lost messages are asked for again."""

    slop_s: float
    reliable: bool


class FrameInput:
    """Subscribes to cameras and joint states, calls `on_frame` for each complete frame, and drops what can't be used.

    A frame whose pictures come of a camera that is frozen is dropped; see `FrozenView`.

    Attributes:
        frozen_view_m: a camera is frozen if its pixels stay the same while the tool moves further than this.
        trouble: what was wrong with the last message that was dropped, in words, until a complete frame comes.
        frames: counts new ones that were complete and could be used.
        dropped: messages and frames that could not, by reason.
    """

    def __init__(
        self,
        node: Node,
        info: PolicyInfo,
        arm: ArmParameters,
        settings: FrameSettings,
        frozen_view_m: float,
        on_frame: Callable[[RobotFrame], None],
    ) -> None:
        self.frozen_view_m = frozen_view_m
        self.trouble = ""
        self.frames = RateMeter()
        self.dropped: Counter[str] = Counter()
        self._views = {topic: FrozenView(arm.geometry) for topic in (graph.STATIC_IMAGE, graph.GRIPPER_IMAGE)}
        self._told_s: dict[str, float] = {}
        self._node = node
        self._arm = arm
        self._on_frame = on_frame
        self._sync = FrameSync(("static", "gripper", "joints"), settings.slop_s)
        static = partial(self._on_image, "static", graph.STATIC_IMAGE, info.static_shape)
        gripper = partial(self._on_image, "gripper", graph.GRIPPER_IMAGE, info.gripper_shape)
        quality = FRAMES if settings.reliable else qos_profile_sensor_data
        self._subscriptions = [
            node.create_subscription(JointState, graph.JOINT_STATES, self._on_joints, quality),
            node.create_subscription(Image, graph.GRIPPER_IMAGE, gripper, quality),
            node.create_subscription(Image, graph.STATIC_IMAGE, static, quality),
        ]

    def close(self) -> None:
        """Ends the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_image(self, channel: str, topic: str, shape: tuple[int, int, int], message: Image) -> None:
        try:
            image = checked_image("image", image_to_rgb(message), shape)
        except ConfigError as error:
            self._drop(f"{topic}: {error}", f"{topic} unusable")
        else:
            self._add(channel, message.header.stamp, image)

    def _on_joints(self, message: JointState) -> None:
        try:
            names = (*self._arm.joint_names, *self._arm.finger_joint_names)
            positions = joint_positions(message, names)
        except ConfigError as error:
            self._drop(f"{graph.JOINT_STATES}: {error}", f"{graph.JOINT_STATES} unusable")
        else:
            self._add("joints", message.header.stamp, positions)

    def _add(self, channel: str, stamp: Time, value: np.ndarray) -> None:
        frames = self._sync.add(channel, stamp_to_s(stamp), (stamp, value), time.monotonic())
        if frames is not None and not self._frozen(frames):
            self.trouble = ""
            if not frames.repeated:
                self.frames.note(time.monotonic())
            self._on_frame(self._robot_frame(frames))

    def _frozen(self, frames: FrameSet) -> bool:
        """Whether a camera shows the same pixels although the arm has moved."""
        joints_rad = frames.values["joints"][1][: len(self._arm.joint_names)]
        pictures = (frames.values["static"], frames.values["gripper"])
        moved_m = {
            topic: view.moved_m(stamp_to_ns(stamp), image, joints_rad)
            for (topic, view), (stamp, image) in zip(self._views.items(), pictures, strict=True)
        }
        frozen = [topic for topic, way_m in moved_m.items() if way_m > self.frozen_view_m]
        if frozen:
            self._drop(
                f"{' and '.join(frozen)}: frozen: the same pixels although the tool has moved more than "
                f"{self.frozen_view_m:g} m (a simulated camera with nothing that moves in view: raise frozen_view_m)",
                f"{' and '.join(frozen)} frozen",
            )
        return bool(frozen)

    def _robot_frame(self, frames: FrameSet) -> RobotFrame:
        stamp, rgb_static = frames.values["static"]
        _, rgb_gripper = frames.values["gripper"]
        _, positions = frames.values["joints"]
        arm_count = len(self._arm.joint_names)
        return RobotFrame(
            stamp_ns=stamp_to_ns(stamp),
            stamp_s=frames.stamp_s,
            rgb_static=rgb_static,
            rgb_gripper=rgb_gripper,
            joints_rad=positions[:arm_count],
            opening_m=float(positions[arm_count:].sum()),
            received_s=frames.received_s,
            repeated=frames.repeated,
        )

    def _drop(self, trouble: str, reason: str) -> None:
        """Remembers the trouble, counts it, and logs it unless it was logged lately."""
        self.trouble = trouble
        self.dropped[reason] += 1
        now_s = time.monotonic()
        if now_s - self._told_s.get(trouble, -np.inf) > QUIET_S:
            self._node.get_logger().warning(f"dropped a message on {trouble}")
            self._told_s = {text: told_s for text, told_s in self._told_s.items() if now_s - told_s < QUIET_S}
            self._told_s[trouble] = now_s
