"""A policy node with a scripted policy, in a thread, and the cameras and the client that a test needs around it."""

import importlib
import threading
import time

import numpy as np
from deer_msgs.msg import PolicyAction
from sensor_msgs.msg import Image, JointState

from deer_policies.interfaces import ActionChunk, Budget, ExitReport, PolicyInfo, Understanding
from deer_ros import graph
from deer_ros.conversions import ns_to_stamp, rgb_to_image
from deer_ros.nodes.policy_node import PolicyNode
from deer_ros.quality import COMMANDS, FRAMES
from tests.ros.node_rig import DEADLINE_S, JOINTS, NodeRig, wait

SETTINGS = {
    "frame_timeout_s": 1.0,
    "max_image_age_s": 0.5,
    "default_max_steps": 5,
    "image_slop_s": 0.0,
    "model_timeout_s": 5.0,
}
STATIC, GRIPPER = np.full((6, 6, 3), 7, np.uint8), np.full((4, 4, 3), 9, np.uint8)


class ScriptedPolicy:
    """Counts its steps in its state; what it does can be changed while it runs.

    The x of its actions tells the number of the step in hundredths, y the place in the chunk in tenths.
    """

    def __init__(self, horizon=1):
        self.info = PolicyInfo("scripted", (1, 3), STATIC.shape, GRIPPER.shape, horizon=horizon)
        self.budget = Budget()
        self.loaded_as = None
        self.load_error = None
        self.step_error = None
        self.step_time_s = 0.0
        self.seen = []
        self.unknown = set()

    def understanding(self, instruction):
        return Understanding("wave", instruction not in self.unknown, 0.3, "wave to me", ("wave to me",))

    def load(self, *parameters):
        self.loaded_as = parameters
        if self.load_error is not None:
            raise self.load_error
        return self

    def set_budget(self, budget):
        self.budget = budget

    def initial_state(self):
        return 0

    def step(self, observation, state):
        if observation.instruction != "warm up":
            self.seen.append((observation, state))
            if self.step_error is not None:
                raise self.step_error
        time.sleep(self.step_time_s)
        places = range(self.info.horizon)
        actions = np.array([[0.01 * (state + 1), 0.1 * place, 0, 0, 0, 0, -1] for place in places], np.float32)
        return ActionChunk(actions), state + 1, ExitReport(0, 1, (), (1.0, 1.0), 1.0, 2.0, 3.0, 4.0, 0.1)


class Rig(NodeRig):
    """A policy node in a thread, a client, and cameras that the test triggers."""

    def __init__(self, horizon=1, policy=None, **settings):
        self.policy = policy or ScriptedPolicy(horizon)
        importlib.import_module("deer_policies.deer.view_reuse")  # with torch, which a real policy has loaded by then
        super().__init__(lambda: PolicyNode(self.policy.load), {**SETTINGS, **settings})

    def connect(self, node):
        self.static = node.create_publisher(Image, graph.STATIC_IMAGE, FRAMES)
        self.gripper = node.create_publisher(Image, graph.GRIPPER_IMAGE, FRAMES)
        self.joints = node.create_publisher(JointState, graph.JOINT_STATES, FRAMES)
        self.actions = []
        node.create_subscription(PolicyAction, graph.POLICY_ACTION, self.actions.append, COMMANDS)
        self.stamp_ns = 10**9

    def bring_up(self):
        self.activate()
        wait(lambda: self.static.get_subscription_count() and self.joints.get_subscription_count())

    def show(self, static=STATIC, gripper=GRIPPER, joints=JOINTS, new=True, encoding="rgb8"):
        """Publishes one frame; `new` gives it a stamp of its own."""
        self.stamp_ns += 33_000_000 * new
        stamp = ns_to_stamp(self.stamp_ns)
        message = JointState(name=[f"panda_joint{index}" for index in range(1, 8)], position=list(joints))
        message.name += ["panda_finger_joint1", "panda_finger_joint2"]
        message.position.extend((0.02, 0.02))
        message.header.stamp = stamp
        self.joints.publish(message)
        self.gripper.publish(rgb_to_image(gripper, stamp, ""))
        picture = rgb_to_image(static, stamp, "")
        picture.encoding = encoding
        self.static.publish(picture)

    def show_until(self, condition, **frame):
        """Shows new frames at a steady rate until the condition holds."""

        def shown():
            self.show(**frame)
            time.sleep(0.03)
            return condition()

        wait(shown)

    def follow(self, **frame):
        """Follows an instruction on frames that keep coming, to its end."""
        goal = self.client.send("go")
        results = []
        waiting = threading.Thread(target=lambda: results.append(goal.result(DEADLINE_S)))
        waiting.start()
        self.show_until(lambda: results, **frame)
        waiting.join()
        return results[0]
