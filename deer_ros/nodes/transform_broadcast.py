"""Publishes the frames of the simulated arm and its cameras on /tf and /tf_static."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import TransformStamped

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.control.arm import ArmParameters
from deer_ros.conversions import ns_to_stamp
from deer_ros.quality import LATCHED

if TYPE_CHECKING:
    from rclpy.node import Node

WORLD, TOOL = "world", "panda_hand_tcp"
STATIC_CAMERA, GRIPPER_CAMERA = "camera_static_optical_frame", "camera_gripper_optical_frame"


class TransformBroadcast:
    """The base of the arm and the static camera in `world`, the tool in the base, the gripper's camera in the tool.

    Axes are those of REP 103: x forward, y left, z up; in an optical frame x right, y down, z forward.

    Args:
        node: that the publishers belong to.
        arm: which arm.
        static_camera: (4, 4) pose of the static camera's optical frame in the world.
        gripper_camera: (4, 4) pose of the other camera's optical frame in the tool.

    Raises:
        ConfigError: if tf2_msgs is not installed.
    """

    def __init__(self, node: Node, arm: ArmParameters, static_camera: np.ndarray, gripper_camera: np.ndarray) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise ConfigError(
                "publish_tf needs the ROS 2 package tf2_msgs (ros-<distribution>-tf2-msgs); install it, or set "
                "publish_tf to false"
            ) from error
        self._node = node
        self._arm = arm
        self._type: Any = TFMessage
        base = np.eye(4)
        base[:3, 3] = arm.geometry.base_position_m
        self._fixed = (
            (WORLD, arm.base_frame, base),
            (WORLD, STATIC_CAMERA, static_camera),
            (TOOL, GRIPPER_CAMERA, gripper_camera),
        )
        self._static = node.create_publisher(TFMessage, graph.TF_STATIC, LATCHED)
        self._moving = node.create_publisher(TFMessage, graph.TF, 10)

    def publish_static(self, stamp_ns: int) -> None:
        """Tells what stays; late subscribers get it too."""
        transforms = [_transform(parent, child, pose, stamp_ns) for parent, child, pose in self._fixed]
        self._static.publish(self._type(transforms=transforms))

    def publish(self, joints_rad: np.ndarray, stamp_ns: int) -> None:
        """Tells where the tool is with joints (7,)."""
        position, rotation = self._arm.geometry.tcp_frame(joints_rad)
        tool = np.eye(4)
        tool[:3, :3] = rotation
        tool[:3, 3] = position - self._arm.geometry.base_position_m
        self._moving.publish(self._type(transforms=[_transform(self._arm.base_frame, TOOL, tool, stamp_ns)]))

    def close(self) -> None:
        """Takes the publishers away."""
        self._node.destroy_publisher(self._static)
        self._node.destroy_publisher(self._moving)


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion (4,) x y z w, with w of 0 or more, of a rotation (3, 3): the eigenvector of Bar-Itzhack
    (2000), 'New method for extracting the quaternion from a rotation matrix'."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    key = np.array(
        (
            (xx - yy - zz, 0.0, 0.0, 0.0),
            (yx + xy, yy - xx - zz, 0.0, 0.0),
            (zx + xz, zy + yz, zz - xx - yy, 0.0),
            (zy - yz, xz - zx, yx - xy, xx + yy + zz),
        )
    )
    found = np.linalg.eigh(key / 3.0)[1][:, -1]
    return found if found[3] >= 0.0 else -found


def _transform(parent: str, child: str, pose: np.ndarray, stamp_ns: int) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = ns_to_stamp(stamp_ns)
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion(pose[:3, :3]).tolist()
    return message
