"""The gripper's actions, as ros2_control's gripper controllers serve them, over ROS and against the physics."""

import numpy as np
import pytest

pytest.importorskip("pybullet")

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient

from deer_ros import graph
from tests.ros.node_rig import DEADLINE_S, wait
from tests.ros.simulator_rig import REAL_TIME, SimulatorRig

FINGERS = ("panda_finger_joint1", "panda_finger_joint2")


class Kind:
    """How one of the two actions says things."""

    def __init__(self, name):
        from control_msgs.action import GripperCommand, ParallelGripperCommand

        self.name = name
        self.parallel = name == "parallel_gripper_command"
        self.type = ParallelGripperCommand if self.parallel else GripperCommand

    def goal(self, opening_m):
        goal = self.type.Goal()
        if self.parallel:
            goal.command.name = list(FINGERS)
            goal.command.position = [opening_m / 2] * 2
        else:
            goal.command.position = opening_m
        return goal

    def opening(self, message):
        if self.parallel:
            assert tuple(message.state.name) == FINGERS
            return sum(message.state.position)
        return message.position


class Rig(SimulatorRig):
    """A simulator with a client of its gripper's action."""

    def __init__(self, kind):
        super().__init__(**REAL_TIME, gripper_interface=kind.name)
        self.kind = kind
        self.action = ActionClient(self.client.node, kind.type, graph.GRIPPER_ACTION)
        wait(self.action.server_is_ready)

    def send(self, goal):
        """The handle of a goal, and the list that its feedback comes in."""
        feedback = []
        sent = self.action.send_goal_async(goal, lambda message: feedback.append(message.feedback))
        return self.client.wait_for(sent, DEADLINE_S, "the gripper's goal"), feedback

    def result(self, handle):
        return self.client.wait_for(handle.get_result_async(), DEADLINE_S, "the gripper's result")

    def move(self, opening_m):
        handle, feedback = self.send(self.kind.goal(opening_m))
        return self.result(handle), feedback

    @property
    def opening(self):
        return sum(self.joints.last.position[7:])


@pytest.fixture(scope="module", params=["gripper_command", "parallel_gripper_command"])
def module_rig(request, interface_packages):
    made = Rig(Kind(request.param))
    yield made
    made.close()


@pytest.fixture
def rig(module_rig):
    module_rig.reset()
    return module_rig


def test_a_free_gripper_reaches_its_goal(rig):
    for opening in (0.03, 0.0, 0.08):
        told, feedback = rig.move(opening)
        assert told.status == GoalStatus.STATUS_SUCCEEDED
        assert (told.result.reached_goal, told.result.stalled) == (True, False)
        assert rig.kind.opening(told.result) == pytest.approx(opening, abs=0.002)
        assert rig.opening == pytest.approx(opening, abs=0.002)
        assert feedback
        openings = [rig.kind.opening(message) for message in feedback]
        assert np.ptp(openings) > 0.005 or len(openings) < 3


def holding_a_block(rig):
    """Puts a block between the fingers, the gripper open around it."""
    now = rig.node._now
    scene_obs = now.scene_obs.copy()
    tool = now.robot_obs[:3]
    scene_obs[6:9] = tool
    scene_obs[9:12] = 0.0
    rig.reset(scene_obs=scene_obs)


def test_closing_on_a_block_stalls(rig):
    holding_a_block(rig)
    told, _ = rig.move(0.0)
    assert told.status == GoalStatus.STATUS_SUCCEEDED
    assert (told.result.reached_goal, told.result.stalled) == (False, True)
    assert rig.kind.opening(told.result) > 0.02
    assert rig.opening > 0.02


def test_a_newer_goal_replaces_the_one_before(rig):
    first, _ = rig.send(rig.kind.goal(0.0))
    second, _ = rig.send(rig.kind.goal(0.05))
    told = rig.result(first)
    assert told.status == GoalStatus.STATUS_ABORTED
    assert not told.result.reached_goal
    assert rig.result(second).result.reached_goal
    assert rig.opening == pytest.approx(0.05, abs=0.002)


def test_a_cancelled_gripper_stays_where_it_is(rig):
    handle, feedback = rig.send(rig.kind.goal(0.0))
    wait(lambda: feedback)
    rig.client.wait_for(handle.cancel_goal_async(), DEADLINE_S, "the cancellation")
    told = rig.result(handle)
    assert told.status == GoalStatus.STATUS_CANCELED
    rig.joints.next(20)
    assert rig.opening == pytest.approx(rig.kind.opening(told.result), abs=0.02)
    assert rig.opening > 0.005


def test_goals_that_make_no_sense_are_rejected(rig):
    wrong = [rig.kind.goal(float("nan"))]
    if rig.kind.parallel:
        others = rig.kind.goal(0.05)
        others.command.name = ["elbow", "wrist"]
        short = rig.kind.goal(0.05)
        short.command.position = [0.02]
        wrong += [others, short]
    for goal in wrong:
        assert not rig.send(goal)[0].accepted


def test_one_finger_stands_for_both(rig):
    if not rig.kind.parallel:
        pytest.skip("GripperCommand knows no joints")
    goal = rig.kind.goal(0.05)
    goal.command.name, goal.command.position = [FINGERS[0]], [0.02]
    handle, _ = rig.send(goal)
    assert rig.kind.opening(rig.result(handle).result) == pytest.approx(0.04, abs=0.002)


def test_a_reset_and_a_slow_line_are_survived(rig):
    handle, _ = rig.send(rig.kind.goal(0.0))
    rig.reset()
    assert rig.result(handle).status in (GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_SUCCEEDED)
    assert rig.set(command_latency_s=0.4) == ""
    try:
        handle, feedback = rig.send(rig.kind.goal(0.03))
        rig.joints.next(6)
        assert not feedback
        assert rig.result(handle).result.reached_goal
    finally:
        assert rig.set(command_latency_s=0.0) == ""
