"""The safety node over ROS: what comes out of it, through each of its interfaces, and what keeps it still."""

import time

import numpy as np
import pytest
from deer_msgs.msg import PolicyAction, SafetyState
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from deer_ros import graph
from deer_ros.control.watchdog import GateState
from deer_ros.errors import StackError
from deer_ros.nodes.safety_node import SafetyNode
from deer_ros.quality import COMMANDS, FRAMES, LATCHED
from tests.ros.node_rig import DEADLINE_S, JOINTS, NodeRig, wait

FORWARD = (0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
NAMES = [f"panda_joint{index}" for index in range(1, 8)]
SETTINGS = {"arm_on_start": True, "workspace_low_m": [-1.0, -1.0, 0.0], "workspace_high_m": [1.0, 1.0, 1.5]}


class Bench(NodeRig):
    """A safety node in a thread, and around it a driver, cameras and a policy that the test moves."""

    def __init__(self, **settings):
        super().__init__(SafetyNode, {**SETTINGS, **settings})

    def connect(self, node):
        self.joints = node.create_publisher(JointState, graph.JOINT_STATES, FRAMES)
        self.images = [
            node.create_publisher(Image, topic, FRAMES) for topic in (graph.STATIC_IMAGE, graph.GRIPPER_IMAGE)
        ]
        self.actions = node.create_publisher(PolicyAction, graph.POLICY_ACTION, COMMANDS)
        self.operator = node.create_publisher(TwistStamped, graph.OPERATOR_TWIST, COMMANDS)
        self.e_stop = node.create_publisher(Bool, graph.E_STOP, COMMANDS)
        self.twists, self.trajectories, self.grippers, self.states = [], [], [], []
        for kind, topic, found, quality in (
            (TwistStamped, graph.ARM_TWIST, self.twists, COMMANDS),
            (JointTrajectory, graph.ARM_TRAJECTORY, self.trajectories, COMMANDS),
            (Float64, graph.GRIPPER_COMMAND, self.grippers, COMMANDS),
            (SafetyState, graph.SAFETY_STATE, self.states, LATCHED),
        ):
            node.create_subscription(
                kind, topic, lambda message, to=found: to.append((time.monotonic(), message)), quality
            )
        self.joints_rad = list(JOINTS)
        self.sent = 0

    def bring_up(self):
        self.activate()
        publishers = (self.joints, *self.images, self.actions, self.operator, self.e_stop)
        wait(lambda: all(publisher.get_subscription_count() for publisher in publishers))
        wait(lambda: self.node.count_subscribers(graph.ARM_TWIST) and self.node.count_subscribers(graph.ARM_TRAJECTORY))

    def sense(self):
        self.joints.publish(JointState(name=NAMES, position=self.joints_rad))
        for publisher in self.images:
            publisher.publish(Image(height=1, width=1, encoding="rgb8", step=3, data=b"abc"))

    def run(self, seconds, action=FORWARD, sense=True):
        """The policy acts at 30 Hz for so long."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if sense:
                self.sense()
            message = PolicyAction()
            message.action = np.array(action, np.float32)
            self.actions.publish(message)
            self.sent += 1
            time.sleep(1 / 30)

    def drive(self, seconds, speed, frame="panda_link0"):
        """The operator does, with no camera."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.joints.publish(JointState(name=NAMES, position=self.joints_rad))
            message = TwistStamped()
            message.header.frame_id = frame
            message.twist.linear.y = speed
            self.operator.publish(message)
            time.sleep(1 / 30)

    def speeds(self, since_s=0.0):
        return np.array([message.twist.linear.x for at_s, message in list(self.twists) if at_s > since_s])

    @property
    def state(self):
        message = self.states[-1][1]
        return message.state, message.reason

    def take_over(self, wanted):
        client = self.client.node.create_client(SetBool, graph.SAFETY_TAKEOVER)
        wait(client.service_is_ready)
        return self.client.wait_for(client.call_async(SetBool.Request(data=wanted)), DEADLINE_S, "the takeover")


@pytest.fixture
def make():
    benches = []

    def start(**settings):
        benches.append(Bench(**settings))
        benches[0].bring_up()
        return benches[0]

    yield start
    benches[0].close()


def test_commands_go_out_smoothly_at_the_controllers_rate_then_hold_then_fall_silent(make):
    bench = make(hold_duration_s=0.3)
    began_s = time.monotonic()
    bench.run(1.0)
    ended_s = time.monotonic()
    speeds = bench.speeds(began_s)
    assert len(speeds) > 1.3 * bench.sent, "more than there were actions"
    assert speeds.max() == pytest.approx(0.06, abs=5e-3)
    assert len(set(speeds[(speeds > 0.0) & (speeds < 0.055)])) >= 2, (
        "no jump, though the first action asks for 0.06 m/s"
    )
    wait(lambda: bench.state == (GateState.HOLDING, "no command for 0.1 s"))
    time.sleep(1.0)
    moving = [at_s for at_s, message in bench.twists if message.twist.linear.x != 0.0]
    assert max(moving) - ended_s < 0.4
    assert max(at_s for at_s, _ in bench.twists) - ended_s < 1.0, "then it is silent"
    assert bench.twists[-1][1].header.frame_id == "panda_link0"
    assert bench.grippers[-1][1].data == 0.08


@pytest.mark.parametrize("missing", ["images", "joints"])
def test_without_a_camera_or_joint_states_nothing_moves(make, missing):
    bench = make()
    if missing == "images":
        bench.images.pop()
    else:
        bench.joints = bench.client.node.create_publisher(JointState, "nowhere", FRAMES)
    bench.run(0.4)
    assert not bench.speeds().any()
    assert ("no image on camera/gripper" if missing == "images" else "no joint state") in bench.state[1]


def test_a_camera_that_stops_in_the_middle_of_motion_holds(make):
    bench = make(image_timeout_s=0.2)
    bench.run(0.5)
    assert bench.speeds().any()
    stopped_s = time.monotonic()
    bench.images.pop()
    bench.run(0.6)
    moving = [at_s for at_s, message in bench.twists if message.twist.linear.x != 0.0]
    assert max(moving) - stopped_s < 0.2 + 0.1 + 0.1


def test_the_e_stop_is_at_once_latched_and_armed_only_when_let_go(make):
    bench = make()
    bench.run(0.5)
    bench.e_stop.publish(Bool(data=True))
    wait(lambda: bench.state[0] == GateState.STOPPED)
    pressed_s = bench.states[-1][0]
    bench.run(0.3)
    assert not bench.speeds(pressed_s + 0.02).any()
    with pytest.raises(StackError, match="pressed"):
        bench.client.arm()
    bench.e_stop.publish(Bool(data=False))
    bench.run(0.2)
    assert bench.state == (GateState.STOPPED, "the e-stop is pressed")
    bench.client.arm()
    armed_s = time.monotonic()
    bench.run(0.5)
    assert bench.speeds(armed_s).any()


def test_a_stop_holds_through_the_lifecycle_and_before_it(make):
    bench = make()
    bench.client.stop()
    bench.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    with pytest.raises(StackError, match="not active"):
        bench.client.arm()
    bench.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    bench.run(0.3)
    assert bench.state[0] == GateState.STOPPED
    assert not bench.speeds().any()


def test_deactivation_in_the_middle_of_motion_ends_it(make):
    bench = make()
    bench.run(0.5)
    assert bench.speeds().any()
    bench.change(Transition.TRANSITION_DEACTIVATE)
    ended_s = time.monotonic()
    bench.run(0.3)
    assert bench.twists[-1][1].twist.linear.x == 0.0
    assert not bench.speeds(ended_s + 0.02).any()
    assert bench.state[0] == GateState.STOPPED


def test_an_operator_who_has_not_taken_over_is_not_heard(make):
    bench = make()
    bench.run(0.5)
    stray = TwistStamped()
    stray.header.frame_id = "camera"
    stray.twist.linear.y = 1.0
    sent_s = time.monotonic()
    for _ in range(10):
        bench.operator.publish(stray)
        bench.run(0.05)
    assert bench.state == (GateState.ARMED, "")
    assert bench.speeds(sent_s).min() > 0.05
    assert not any(message.twist.linear.y for _, message in bench.twists)


def test_an_operator_takes_over_drives_and_hands_back(make):
    bench = make(operator_scale=0.2)
    bench.run(0.3)
    assert bench.take_over(True).success
    wait(lambda: bench.state[0] == GateState.TAKEN_OVER)
    time.sleep(0.2)
    taken_s = time.monotonic()
    bench.run(0.3)
    assert not bench.speeds(taken_s).any(), "the policy moves nothing now"
    bench.drive(0.6, 1.0)
    assert 0.02 < max(message.twist.linear.y for _, message in bench.twists) < 0.053, "a fifth of 0.25 m/s"
    bench.drive(0.3, 1.0, frame="camera")
    assert "frame 'camera'" in bench.state[1]
    assert bench.take_over(False).success
    wait(lambda: bench.state[0] == GateState.HOLDING)
    bench.client.stop()
    assert not bench.take_over(True).success


def test_limits_change_while_it_runs_and_bad_ones_are_refused(make):
    bench = make()
    bench.run(0.5)
    assert bench.set(linear_speed_m_s=0.03) == ""
    changed_s = time.monotonic()
    bench.run(0.5)
    assert bench.speeds(changed_s + 0.2).max() == pytest.approx(0.03, abs=1e-3)
    for name, value in (("linear_speed_m_s", float("inf")), ("linear_jerk_m_s3", 0.0), ("gripper_closed_m", 0.1)):
        assert bench.set(**{name: value}) != ""
    bench.run(0.2)
    assert bench.speeds()[-1] == pytest.approx(0.03, abs=1e-3)


def test_joint_trajectories_begin_at_the_measured_joints_and_come_to_rest(make):
    bench = make(arm_output="joint_trajectory", joint_tracking_rad=0.02)
    bench.run(0.12)
    assert not bench.twists
    first = bench.trajectories[0][1]
    assert first.joint_names == NAMES
    np.testing.assert_allclose(first.points[0].positions, JOINTS, atol=2e-3)
    assert any(first.points[0].velocities)
    assert not any(first.points[1].velocities)
    assert first.points[1].time_from_start.nanosec > first.points[0].time_from_start.nanosec
    ahead = np.array([message.points[0].positions for _, message in bench.trajectories])
    assert np.abs(np.diff(ahead, axis=0)).max() < 0.01
    bench.run(1.5)
    reasons = {message.reason for _, message in bench.states}
    assert any("does not follow" in reason for reason in reasons), "the joint states stand still here"


def test_the_answer_to_one_frame_again_and_again_is_no_news(make):
    """A camera that repeats one message makes the policy node repeat its answer."""
    bench = make()
    bench.run(0.4)
    repeated_s = time.monotonic()
    while time.monotonic() < repeated_s + 0.6:
        bench.sense()
        message = PolicyAction()
        message.header.stamp.sec = 7
        message.action = np.array(FORWARD, np.float32)
        bench.actions.publish(message)
        time.sleep(1 / 30)
    moving = [at_s for at_s, message in bench.twists if message.twist.linear.x != 0.0]
    assert max(moving) - repeated_s < 0.4
    assert bench.state[0] == GateState.HOLDING


def test_a_second_sender_is_told_of(make):
    from diagnostic_msgs.msg import DiagnosticArray

    bench = make()
    told = []
    bench.client.node.create_subscription(DiagnosticArray, graph.DIAGNOSTICS, told.append, 10)
    other = bench.client.node.create_publisher(TwistStamped, graph.ARM_TWIST, COMMANDS)
    wait(lambda: any("past the safety node" in status.message for array in told for status in array.status))
    bench.client.node.destroy_publisher(other)
    values = {item.key: item.value for item in told[-1].status[0].values}
    assert {"state", "policy/action rate Hz", "camera/static/image_raw age s"} <= set(values)
