"""The policy node with a scripted policy and cameras: transitions, bad input, faults, repeats, cancellation."""

import time

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from std_msgs.msg import String

from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.interfaces import Budget, PolicyInfo
from deer_ros import graph
from deer_ros.bringup import free_domain_id
from deer_ros.errors import StackError
from deer_ros.nodes.policy_node import PolicyNode
from deer_ros.reports import Outcome
from tests.ros.node_rig import DEADLINE_S, JOINTS, wait
from tests.ros.policy_rig import GRIPPER, STATIC, Rig, ScriptedPolicy


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


@pytest.fixture(scope="module")
def running():
    """One active node for the tests that leave it as it was."""
    made = Rig()
    made.bring_up()
    yield made
    made.close()


@pytest.fixture
def active(running):
    running.policy.step_error, running.policy.step_time_s = None, 0.0
    del running.policy.seen[:]
    time.sleep(0.05)
    del running.actions[:]
    return running


def test_a_precision_that_there_is_not():
    rclpy.init(args=["--ros-args", "-p", "precision:=int3"], domain_id=free_domain_id())
    try:
        with pytest.raises(ConfigError, match=r"precision of node policy is 'int3'; it must be one of float32, b"):
            PolicyNode()
    finally:
        rclpy.try_shutdown()


def test_limits_among_the_parameters_are_the_first_budget():
    settings = ["-p", "latency_ms:=25.0", "-p", "peak_memory_gib:=1.5"]
    rclpy.init(args=["--ros-args", *settings], domain_id=free_domain_id())
    policy = ScriptedPolicy()
    node = PolicyNode(policy.load)
    try:
        node.set_up()
        assert policy.loaded_as[-1] == Budget(latency_ms=25.0, peak_memory_gib=1.5)
    finally:
        node.release()
        node.destroy_node()
        rclpy.try_shutdown()


def test_the_check_of_instructions_can_be_turned_off():
    policy = ScriptedPolicy()
    policy.unknown = {"sing"}
    rclpy.init(args=["--ros-args", "-p", "refuse_unknown:=false"], domain_id=free_domain_id())
    node = PolicyNode(policy.load)
    try:
        node.set_up()
        assert node._begin(b"1" * 16, "sing", 0).instruction == "sing"
    finally:
        node.release()
        node.destroy_node()
        rclpy.try_shutdown()


def test_what_can_not_be_loaded_can_be_tried_again(rig):
    rig.policy.load_error = CheckpointError("the file is damaged")
    with pytest.raises(StackError, match="refused"):
        rig.change(Transition.TRANSITION_CONFIGURE)
    rig.policy.load_error = None
    rig.policy.info = PolicyInfo("scripted", (1, 3), STATIC.shape, GRIPPER.shape, rate_hz=10.0)
    with pytest.raises(StackError, match="refused"):
        rig.change(Transition.TRANSITION_CONFIGURE)
    rig.policy.info = PolicyInfo("scripted", (1, 3), STATIC.shape, GRIPPER.shape)
    rig.change(Transition.TRANSITION_CONFIGURE)
    assert rig.policy.loaded_as == ("deer-nano", "cpu", 2, "float32", 0.0, None)
    assert rig.client.send("go").result(DEADLINE_S).outcome is Outcome.REJECTED
    rig.change(Transition.TRANSITION_ACTIVATE)
    wait(lambda: rig.static.get_subscription_count())
    goal = rig.client.send("go", max_steps=1000)
    rig.show_until(lambda: len(rig.actions) >= 2)
    rig.change(Transition.TRANSITION_DEACTIVATE)
    result = goal.result(DEADLINE_S)
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, "the node was deactivated")
    time.sleep(0.1)
    assert not rig.actions[-1].action[:6].any()
    count = len(rig.actions)
    for _ in range(5):
        rig.show()
        time.sleep(0.02)
    assert len(rig.actions) == count
    rig.change(Transition.TRANSITION_CLEANUP)
    rig.bring_up()
    assert rig.follow().outcome is Outcome.TIMEOUT


def test_each_frame_is_answered_and_the_state_goes_on(active):
    result = active.follow()
    assert (result.outcome, result.steps) == (Outcome.TIMEOUT, 5)
    assert [state for _, state in active.policy.seen] == [0, 1, 2, 3, 4]
    stamps = [(message.header.stamp.sec, message.header.stamp.nanosec) for message in active.actions]
    assert stamps[:5] == sorted(set(stamps[:5]))
    assert stamps[5:] == [(0, 0)]


def test_proprioception_is_calvins(active):
    active.follow()
    first, second = (observation.proprioception for observation, _ in active.policy.seen[:2])
    np.testing.assert_allclose(first[:3], (0.02586889, -0.2313129, 0.5712808), atol=1e-5)
    np.testing.assert_allclose(first[3:6], (3.09045, -0.02909, 1.50014), atol=1e-4)
    assert first[6] == pytest.approx(0.04)
    np.testing.assert_allclose(first[7:14], JOINTS, rtol=1e-6)
    assert second[14] == -1.0


def test_a_goal_and_what_the_policy_was_shown_are_told(active):
    """All that a recording needs beside the frames; a late subscriber hears of the last goal, too."""
    from deer_msgs.msg import GoalStatus, PolicyInput

    from deer_ros.quality import COMMANDS, LATCHED

    node, inputs = active.client.node, []
    listening = node.create_subscription(PolicyInput, graph.POLICY_INPUT, inputs.append, COMMANDS)
    wait(
        lambda: (
            node.count_publishers(graph.POLICY_INPUT) == 1 and active.node.count_subscribers(graph.POLICY_INPUT) == 1
        )
    )
    time.sleep(0.2)
    result = active.follow()
    wait(lambda: len(inputs) == result.steps == 5)
    states = []
    late = node.create_subscription(GoalStatus, graph.POLICY_GOAL, states.append, LATCHED)
    wait(lambda: states)
    told = states[-1]
    assert (told.outcome, told.instruction, told.steps, told.max_steps) == (GoalStatus.TIMEOUT, "go", 5, 5)
    assert (told.policy, told.precision, told.threads, told.device) == ("deer-nano", "float32", 2, "cpu")
    answers = [action for action in active.actions if action.header.stamp.sec]
    assert [item.header.stamp for item in inputs] == [action.header.stamp for action in answers]
    assert all(bytes(item.goal_id) == bytes(told.goal_id) for item in inputs)
    assert all(item.gripper_stamp == item.joints_stamp == item.header.stamp for item in inputs)
    shown = [observation.proprioception for observation, _ in active.policy.seen]
    np.testing.assert_array_equal([item.proprioception for item in inputs], shown[:5])
    for subscription in (listening, late):
        node.destroy_subscription(subscription)


def test_a_frame_that_is_sent_again_gets_the_same_answer_again(active):
    goal = active.client.send("go", max_steps=1000)
    active.show_until(lambda: active.actions)
    time.sleep(0.1)
    before, steps = active.actions[-1], len(active.policy.seen)
    count = len(active.actions)
    active.show(new=False)
    wait(lambda: len(active.actions) == count + 1)
    assert active.actions[-1] == before
    assert len(active.policy.seen) == steps
    assert goal.cancel()


def test_without_frames_a_goal_fails(active):
    result = active.client.send("go").result(DEADLINE_S)
    assert result.outcome is Outcome.FAILED
    assert "no usable frame" in result.reason


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"encoding": "32FC1"}, "encoding '32FC1' can't be read"),
        ({"encoding": "bgra8"}, "bytes"),
        ({"static": np.zeros((5, 5, 3), np.uint8)}, r"(5, 5, 3); it must be (6, 6, 3)"),
        ({"joints": (np.nan, *JOINTS[1:])}, "not finite"),
    ],
)
def test_bad_frames_fail_the_goal_with_the_reason(active, frame, reason):
    result = active.follow(**frame)
    assert result.outcome is Outcome.FAILED
    assert reason in result.reason
    assert not active.actions


@pytest.mark.parametrize("error", [ConfigError("unfit"), RuntimeError("a fault")])
def test_a_policy_that_fails_ends_the_goal_and_not_the_node(active, error):
    active.policy.step_error = error
    result = active.follow()
    assert result.outcome is Outcome.FAILED
    assert str(error) in result.reason
    active.policy.step_error = None
    assert active.follow().outcome is Outcome.TIMEOUT


def test_cancelling_does_not_wait_for_the_model(active):
    active.policy.step_time_s = 0.8
    goal = active.client.send("go", max_steps=1000)
    active.show_until(lambda: active.policy.seen)
    asked_s = time.monotonic()
    assert goal.cancel()
    assert time.monotonic() - asked_s < 0.4
    count = len(active.actions)
    time.sleep(1.0)
    assert len(active.actions) == count
    assert goal.result(DEADLINE_S).outcome is Outcome.CANCELLED


def test_a_plain_instruction_is_followed(active):
    publisher = active.client.node.create_publisher(String, graph.INSTRUCTION, 10)
    wait(lambda: publisher.get_subscription_count())
    publisher.publish(String(data="  "))
    publisher.publish(String(data="wave"))
    active.show_until(lambda: len(active.policy.seen) >= 5)
    active.client.node.destroy_publisher(publisher)
    assert {observation.instruction for observation, _ in active.policy.seen} == {"wave"}
    active.show_until(lambda: active.actions and not active.actions[-1].action[:6].any())


def test_an_instruction_outside_the_skills_is_refused_and_nothing_moves(active):
    active.policy.unknown = {"sing"}
    goal = active.client.send("sing")
    result = goal.result(DEADLINE_S)
    assert (result.outcome, result.steps) == (Outcome.FAILED, 0)
    assert "'sing' is not understood" in result.reason
    assert "wave (score" not in result.reason
    assert "'wave to me'" in result.reason
    assert "refuse_unknown" in result.reason
    for _ in range(5):
        active.show()
        time.sleep(0.03)
    assert active.policy.seen == []
    assert active.actions == []


def test_an_unknown_instruction_leaves_the_one_in_progress_alone(active):
    active.policy.unknown = {"sing"}
    goal = active.client.send("go")
    active.show_until(lambda: active.policy.seen)
    assert active.client.send("sing").result(DEADLINE_S).outcome is Outcome.FAILED
    active.show_until(lambda: len(active.policy.seen) >= 4)
    assert {observation.instruction for observation, _ in active.policy.seen} == {"go"}
    goal.cancel(DEADLINE_S)
