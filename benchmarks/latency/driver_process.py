"""The driver's side of the arm: two cameras and the joints at 30 Hz, and the commands that come back."""

from __future__ import annotations

import os
import time

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from deer_ros import graph, parameters
from deer_ros.conversions import ns_to_stamp, rgb_to_image, stamp_to_ns
from deer_ros.process import run
from deer_ros.quality import COMMANDS
from latency.trace import Trace, folder

PICTURES = "pictures.npz"
ELEMENT_WISE = "DEER_LATENCY_ELEMENT_WISE"
"""Environment variable: if '1', messages get their images as lists of numbers."""


class DriverNode(Node):
    """Plays pictures and joint angles in a loop, and notes what it sends and receives."""

    def __init__(self, trace: Trace) -> None:
        super().__init__("driver")
        self._trace = trace
        self._arm = parameters.arm(self)
        with np.load(folder() / PICTURES) as played:
            self._static, self._gripper, self._robot = played["static"], played["gripper"], played["robot"]
        self._index = 0
        self._images = [
            self.create_publisher(Image, topic, qos_profile_sensor_data)
            for topic in (graph.STATIC_IMAGE, graph.GRIPPER_IMAGE)
        ]
        self._joints = self.create_publisher(JointState, graph.JOINT_STATES, qos_profile_sensor_data)
        self.create_subscription(TwistStamped, graph.ARM_TWIST, self._on_twist, COMMANDS)
        rate_hz = parameters.number(self, "rate_hz", 30.0, 1.0, 1000.0, "rate of the frames")
        self.create_timer(1.0 / rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _tick(self) -> None:
        """Joint states first: on a robot they do not wait for pictures."""
        frame_us = time.time_ns() // 1000
        self._trace.note("captured", frame_us)
        stamp, index = ns_to_stamp(frame_us * 1000), self._index
        self._index = (index + 1) % len(self._robot)
        robot = self._robot[index].tolist()
        joints = JointState(name=[*self._arm.joint_names, *self._arm.finger_joint_names])
        joints.header.stamp = stamp
        joints.position = [*robot[7:14], robot[6] / 2, robot[6] / 2]
        joints.velocity = [0.0] * len(joints.position)
        self._joints.publish(joints)
        for publisher, images in zip(self._images, (self._static, self._gripper), strict=True):
            message = rgb_to_image(images[index], stamp, "camera")
            if os.environ.get(ELEMENT_WISE) == "1":
                message.data = images[index].ravel().tolist()
            publisher.publish(message)

    def _on_twist(self, message: TwistStamped) -> None:
        self._trace.note("received", stamp_to_ns(message.header.stamp))


def main() -> int:
    """Runs the node as a process and writes its trace."""
    trace = Trace()
    try:
        return run(lambda: DriverNode(trace))
    finally:
        trace.write("driver")


if __name__ == "__main__":
    raise SystemExit(main())
