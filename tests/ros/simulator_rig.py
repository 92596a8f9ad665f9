"""A simulator node in a thread, a client, and recorders of what the simulated driver publishes."""

import time

import numpy as np
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64

from deer_ros import graph
from deer_ros.conversions import ns_to_stamp
from deer_ros.nodes.simulator_node import SimulatorNode
from deer_ros.quality import COMMANDS, FRAMES
from tests.ros.node_rig import NodeRig, wait

REAL_TIME = {"mode": "real_time", "clock": "system"}


class Topic:
    """Keeps what comes on a topic with the time (s, of time.time) at which it came."""

    def __init__(self, node, kind, name, quality=FRAMES):
        self.received = []
        node.create_subscription(kind, name, lambda message: self.received.append((time.time(), message)), quality)

    def next(self, count=1):
        """The next messages from now on, with their times."""
        first = len(self.received)
        wait(lambda: len(self.received) >= first + count)
        return self.received[first : first + count]

    @property
    def last(self):
        return self.received[-1][1]


def stamp_s(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def ages(received):
    """How long after their stamp messages came, s."""
    return [at - stamp_s(message) for at, message in received]


class SimulatorRig(NodeRig):
    """A running simulator node with the given parameters; `active` False leaves it unconfigured."""

    def __init__(self, **settings):
        super().__init__(SimulatorNode, settings)

    def connect(self, node):
        self.joints = Topic(node, JointState, graph.JOINT_STATES)
        self.static = Topic(node, Image, graph.STATIC_IMAGE)
        self.gripper = Topic(node, Image, graph.GRIPPER_IMAGE)
        self.static_info = Topic(node, CameraInfo, graph.STATIC_CAMERA_INFO)
        self.gripper_info = Topic(node, CameraInfo, graph.GRIPPER_CAMERA_INFO)
        self.twists = node.create_publisher(TwistStamped, graph.ARM_TWIST, COMMANDS)
        self.openings = node.create_publisher(Float64, graph.GRIPPER_COMMAND, COMMANDS)
        self.activate()

    def reset(self, seed=0, **state):
        self.client.reset(seed, **state)

    def twist(self, x=0.0, z=0.0, turn=0.0, frame="panda_link0", age_s=0.0):
        message = TwistStamped()
        message.header.frame_id = frame
        message.header.stamp = ns_to_stamp(time.time_ns() - round(age_s * 1e9))
        message.twist.linear.x, message.twist.linear.z, message.twist.angular.z = x, z, turn
        self.twists.publish(message)

    def stream(self, seconds, **twist):
        """Sends a twist at 50 Hz for a while."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.twist(**twist)
            time.sleep(0.02)

    def speed_on(self, seconds=1.0, **twist):
        """The tool's median velocity (m/s) and turn about z (rad/s) on a stream of twists, once it is under way."""
        first = len(self.joints.received) + 6
        self.stream(seconds, **twist)
        poses = [self.pose(message) for _, message in self.joints.received[first:]]
        steps = np.diff([np.append(place, euler[2]) for place, euler in poses], axis=0)
        steps[:, 3] = (steps[:, 3] + np.pi) % (2 * np.pi) - np.pi
        return np.median(steps, axis=0) * 30

    def moved_after(self, **imperfections):
        """How far (m) a twist of 0.2 m/s for 0.5 s takes the tool in x, and after how long (s) it begins to move."""
        assert self.set(**imperfections) == ""
        start, _ = self.tool()
        count, began_s = len(self.joints.received), stamp_s(self.joints.last)
        self.stream(0.5, x=0.2)
        self.joints.next(18)
        moves = [message for _, message in self.joints.received[count:] if max(map(abs, message.velocity)) > 0.02]
        return self.tool()[0][0] - start[0], stamp_s(moves[0]) - began_s if moves else None

    def pose(self, message):
        """Place of the tool and its euler angles by a joint state."""
        return self.node._settings.arm.geometry.tcp_pose(message.position[:7])

    def tool(self):
        """Place of the tool and its euler angles by the newest joint state."""
        return self.pose(self.joints.last)

    def settle(self):
        """Waits until the arm stands still; then its joints."""
        wait(lambda: max(map(abs, self.joints.next()[0][1].velocity)) < 0.01)
        return list(self.joints.last.position)
