"""Turns camera images and joint states into complete, checked frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from deer_policies.errors import ConfigError
from deer_policies.interfaces import PolicyInfo
from deer_ros import graph
from deer_ros.control.camera_fit import CameraFit
from deer_ros.control.frame_sync import FrameSet, FrameSync
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
        rgb_static, rgb_gripper: (rows, columns, 3) uint8, as the cameras send them or in the policy's size already:
            see `FrameInput.views`.
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

    `expects` tells whether the policy will be shown the frame that comes next: then its images are brought to the
    policy's size as they come, while the rest of the frame is on its way.

    `trouble` tells in words what was wrong with the last message that was dropped, until a complete frame comes.

    Raises:
        ConfigError: if a camera's images are smaller than the policy's.
    """

    def __init__(
        self,
        node: Node,
        info: PolicyInfo,
        arm: ArmParameters,
        settings: FrameSettings,
        on_frame: Callable[[RobotFrame], None],
        expects: Callable[[], bool],
    ) -> None:
        self.trouble = ""
        self.frames = 0
        self._told_s: dict[str, float] = {}
        self._node = node
        self._arm = arm
        self._on_frame = on_frame
        self._expects = expects
        self._sync = FrameSync(("static", "gripper", "joints"), settings.slop_s)
        self._static = CameraFit("static", settings.static_size, info.static_shape[:2])
        self._gripper = CameraFit("gripper", settings.gripper_size, info.gripper_shape[:2])
        for fit in (self._static, self._gripper):
            fit(np.zeros((*fit.camera, 3), np.uint8))  # the first time is slow
        static = partial(self._on_image, "static", graph.STATIC_IMAGE, self._static)
        gripper = partial(self._on_image, "gripper", graph.GRIPPER_IMAGE, self._gripper)
        quality = FRAMES if settings.reliable else qos_profile_sensor_data
        self._subscriptions = [
            node.create_subscription(JointState, graph.JOINT_STATES, self._on_joints, quality),
            node.create_subscription(Image, graph.GRIPPER_IMAGE, gripper, quality),
            node.create_subscription(Image, graph.STATIC_IMAGE, static, quality),
        ]

    def views(self, frame: RobotFrame) -> tuple[np.ndarray, np.ndarray]:
        """The static and the gripper camera's image in the policy's sizes, for the frames that the policy is shown."""
        views = ((self._static, frame.rgb_static), (self._gripper, frame.rgb_gripper))
        static, gripper = (image if image.shape[:2] == fit.policy else fit(image) for fit, image in views)
        return static, gripper

    def close(self) -> None:
        """Ends the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_image(self, channel: str, topic: str, fit: CameraFit, message: Image) -> None:
        try:
            image = image_to_rgb(message)
            image = fit(image) if self._expects() else fit.checked(image)
        except ConfigError as error:
            self._drop(f"{topic}: {error}")
        else:
            self._add(channel, message.header.stamp, image)

    def _on_joints(self, message: JointState) -> None:
        try:
            names = (*self._arm.joint_names, *self._arm.finger_joint_names)
            positions = joint_positions(message, names)
        except ConfigError as error:
            self._drop(f"{graph.JOINT_STATES}: {error}")
        else:
            self._add("joints", message.header.stamp, positions)

    def _add(self, channel: str, stamp: Time, value: np.ndarray) -> None:
        frames = self._sync.add(channel, stamp_to_s(stamp), (stamp, value), time.monotonic())
        if frames is not None:
            self.trouble = ""
            self.frames += not frames.repeated
            self._on_frame(self._robot_frame(frames))

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

    def _drop(self, trouble: str) -> None:
        """Remembers the trouble, and logs it unless it was logged lately."""
        self.trouble = trouble
        now_s = time.monotonic()
        if now_s - self._told_s.get(trouble, -np.inf) > QUIET_S:
            self._node.get_logger().warning(f"dropped a message on {trouble}")
            self._told_s = {text: told_s for text, told_s in self._told_s.items() if now_s - told_s < QUIET_S}
            self._told_s[trouble] = now_s
