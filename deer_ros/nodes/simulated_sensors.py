"""What a simulated arm's driver and its two cameras publish, with the imperfections that were asked for."""

from __future__ import annotations

import array
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, JointState

from deer_ros import graph
from deer_ros.control.arm import ArmParameters
from deer_ros.control.imperfections import Imperfections, encoded, scaled
from deer_ros.conversions import ns_to_stamp, rgb_to_image
from deer_ros.nodes.delivery import Delivery
from deer_ros.nodes.transform_broadcast import GRIPPER_CAMERA, STATIC_CAMERA
from deer_ros.quality import FRAMES
from deer_sim.engine.pinhole import Pinhole

if TYPE_CHECKING:
    from rclpy.node import Node


class SimulatedCamera:
    """One camera: its images and what it says about its lens.

    Args:
        node: that the publishers belong to.
        image_topic, info_topic: where its messages go.
        frame: its optical frame.
        lens: how it projects.
        seed: of what its line draws.
    """

    def __init__(self, node: Node, image_topic: str, info_topic: str, frame: str, lens: Pinhole, seed: int) -> None:
        self._node = node
        self._frame = frame
        self._lens = lens
        self.delivery = Delivery(node, seed)
        self._images = node.create_publisher(Image, image_topic, FRAMES)
        self._infos = node.create_publisher(CameraInfo, info_topic, FRAMES)
        self._frozen: np.ndarray | None = None
        self._repeated: tuple[Image, CameraInfo] | None = None

    def publish(self, pixels: np.ndarray, stamp_ns: int, imperfections: Imperfections) -> None:
        """Sends a picture (rows, columns, 3) uint8, or what the imperfections make of it."""
        if not imperfections.camera_frozen:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = pixels
        if not imperfections.camera_repeats:
            self._repeated = None
        messages = self._repeated
        if messages is None:
            messages = self._messages(pixels if self._frozen is None else self._frozen, stamp_ns, imperfections)
        if imperfections.camera_repeats:
            self._repeated = messages
        self.delivery.send(partial(self._send, *messages))

    def close(self) -> None:
        """Takes the publishers away."""
        self.delivery.close()
        self._node.destroy_publisher(self._images)
        self._node.destroy_publisher(self._infos)

    def _messages(self, pixels: np.ndarray, stamp_ns: int, imperfections: Imperfections) -> tuple[Image, CameraInfo]:
        stamp = ns_to_stamp(max(0, stamp_ns + round(imperfections.camera_stamp_offset_s * 1e9)))
        if imperfections.camera_scale != 1.0:
            pixels = scaled(pixels, imperfections.camera_scale)
        image = rgb_to_image(pixels, stamp, self._frame)
        if imperfections.camera_encoding != "rgb8":
            rows = encoded(pixels, imperfections.camera_encoding)
            image.encoding, image.step = imperfections.camera_encoding, rows.shape[1]
            image.data = array.array("B", rows.tobytes())
        return image, camera_info(self._lens, stamp, self._frame)

    def _send(self, image: Image, info: CameraInfo) -> None:
        self._infos.publish(info)
        self._images.publish(image)


class SimulatedSensors:
    """Joint states and both cameras.

    Args:
        node: that the publishers belong to.
        arm: which arm.
        lenses: of the static and the gripper camera.
        seed: of what the lines draw.
        imperfections: to begin with.
    """

    def __init__(
        self, node: Node, arm: ArmParameters, lenses: tuple[Pinhole, Pinhole], seed: int, imperfections: Imperfections
    ) -> None:
        self._node = node
        self._arm = arm
        self._joints = node.create_publisher(JointState, graph.JOINT_STATES, FRAMES)
        self._joint_delivery = Delivery(node, seed)
        static, gripper = lenses
        self._gripper_camera = SimulatedCamera(
            node, graph.GRIPPER_IMAGE, graph.GRIPPER_CAMERA_INFO, GRIPPER_CAMERA, gripper, seed + 1
        )
        self._static_camera = SimulatedCamera(
            node, graph.STATIC_IMAGE, graph.STATIC_CAMERA_INFO, STATIC_CAMERA, static, seed + 2
        )
        self._deliveries = (self._joint_delivery, self._gripper_camera.delivery, self._static_camera.delivery)
        self._frozen: list[float] | None = None
        self.change(imperfections)

    @property
    def lost(self) -> int:
        """Messages that were lost on the way."""
        return sum(delivery.lost for delivery in self._deliveries)

    def change(self, imperfections: Imperfections) -> None:
        """Takes over what is wrong from now on."""
        self._imperfections = imperfections
        self._joint_delivery.change(imperfections.joints)
        self._gripper_camera.delivery.change(imperfections.camera)
        self._static_camera.delivery.change(imperfections.camera)

    def publish_joints(
        self, positions: np.ndarray, velocities: np.ndarray, stamp_ns: int, also: Callable[[], None] | None
    ) -> None:
        """Sends positions and velocities (9,) of arm (rad, rad/s) and fingers (m, m/s), and does what is to be done
        together with that."""
        told = positions.tolist()
        if not self._imperfections.joint_states_frozen:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = told
        message = JointState(name=[*self._arm.joint_names, *self._arm.finger_joint_names])
        message.header.stamp = ns_to_stamp(stamp_ns)
        message.position = told if self._frozen is None else self._frozen
        message.velocity = velocities.tolist() if self._frozen is None else [0.0] * len(told)
        if self._imperfections.nan_joints:
            message.position = [float("nan")] * len(told)

        def send() -> None:
            self._joints.publish(message)
            if also is not None:
                also()

        self._joint_delivery.send(send)

    def publish_pictures(self, rgb_static: np.ndarray, rgb_gripper: np.ndarray, stamp_ns: int) -> None:
        """Sends both pictures, (rows, columns, 3) uint8 each."""
        self._gripper_camera.publish(rgb_gripper, stamp_ns, self._imperfections)
        self._static_camera.publish(rgb_static, stamp_ns, self._imperfections)

    def clear(self) -> None:
        """Forgets what is under way."""
        for delivery in self._deliveries:
            delivery.clear()

    def close(self) -> None:
        """Takes the publishers away."""
        self._joint_delivery.close()
        self._node.destroy_publisher(self._joints)
        self._gripper_camera.close()
        self._static_camera.close()


def camera_info(lens: Pinhole, stamp: Any, frame: str) -> CameraInfo:
    """What sensor_msgs/CameraInfo says of a lens without distortion, which needs no rectification."""
    message = CameraInfo(width=lens.columns, height=lens.rows, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp = stamp
    message.header.frame_id = frame
    matrix = np.array(((lens.fx, 0.0, lens.cx), (0.0, lens.fy, lens.cy), (0.0, 0.0, 1.0)))
    message.k = matrix.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.hstack((matrix, np.zeros((3, 1)))).ravel()
    return message
