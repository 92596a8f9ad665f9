"""The arm's bring-up against the arm that isn't there: instruction to motion, by the parameters of a real arm."""

import time

import numpy as np
import pytest
import yaml

pytest.importorskip("pybullet")

from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import SetBool

from deer_ros import graph
from deer_ros.bringup import Stack, StackConfig
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.quality import COMMANDS, FRAMES
from deer_ros.reports import Outcome
from tests.ros.node_rig import set_parameters, wait
from tests.ros.simulator_rig import Topic, ages

INSTRUCTION = "open the drawer"


def make_config(checkpoint, folder, safety, simulator):
    """Policy and safety with the parameters of arm.yaml, and a simulator that is as slow as a real arm's driver."""
    parameters = yaml.safe_load((graph.CONFIG_FOLDER / "arm.yaml").read_text())
    parameters["/**/policy"]["ros__parameters"]["policy"] = str(checkpoint)
    parameters["/**/safety"]["ros__parameters"].update(safety)
    parameters["/**/simulator"] = {
        "ros__parameters": {
            "mode": "real_time",
            "clock": "system",
            "camera_latency_s": 0.02,
            "camera_jitter_s": 0.01,
            "joint_latency_s": 0.005,
            "command_latency_s": 0.005,
            **simulator,
        }
    }
    file = folder / "parameters.yaml"
    file.write_text(yaml.safe_dump(parameters))
    return StackConfig(parameter_file=file, log_folder=folder)


@pytest.fixture(scope="module")
def stack(tiny_checkpoint, tmp_path_factory, interface_packages):
    """Twists and the gripper action GripperCommand, as arm.yaml has them."""
    folder = tmp_path_factory.mktemp("arm")
    with Stack(make_config(tiny_checkpoint, folder, {}, {"gripper_interface": "gripper_command"})) as running:
        yield running


@pytest.fixture(scope="module")
def joints(stack):
    return Topic(stack.client.node, JointState, graph.JOINT_STATES, FRAMES)


@pytest.fixture(scope="module")
def twists(stack):
    return Topic(stack.client.node, TwistStamped, graph.ARM_TWIST, COMMANDS)


def tool(message):
    return ArmGeometry().tcp_pose(message.position[:7])[0]


def change(stack, **values):
    """Sets parameters of the running simulator."""
    assert set_parameters(stack.client, "simulator", **values) == ""


def speed(joints, count=5):
    """Greatest speed of a joint over the next joint states, rad/s."""
    return max(np.abs(message.velocity[:7]).max() for _, message in joints.next(count))


def test_nothing_moves_before_it_is_armed(stack, joints):
    stack.client.reset(0)
    assert "safety/arm" in stack.client.follow(INSTRUCTION, timeout_s=20.0).reason
    assert speed(joints) < 0.02


def test_an_instruction_becomes_motion(stack, joints, twists):
    stack.client.reset(0)
    stack.client.arm()
    start = tool(joints.next()[0][1])
    first = len(twists.received)
    result = stack.client.follow(INSTRUCTION, max_steps=30, timeout_s=60.0)
    assert (result.outcome, result.steps) == (Outcome.TIMEOUT, 30)
    sent = twists.received[first:]
    assert {message.header.frame_id for _, message in sent} == {"panda_link0"}
    assert np.percentile(ages(sent), 90) < 0.1, "a real Servo would refuse them"
    assert np.linalg.norm(tool(joints.last) - start) > 0.01
    wait(lambda: speed(joints) < 0.02)


def operated_opening(stack, joints, opening_m):
    """What the fingers are apart (m) once an operator has taken over and said so."""
    node = stack.client.node
    takeover, gripper = (
        node.create_client(SetBool, graph.SAFETY_TAKEOVER),
        node.create_publisher(Float64, graph.OPERATOR_GRIPPER, COMMANDS),
    )
    wait(lambda: takeover.service_is_ready() and gripper.get_subscription_count())
    asked = takeover.call_async(SetBool.Request(data=True))
    assert stack.client.wait_for(asked, 5.0, "the takeover").success
    gripper.publish(Float64(data=opening_m))
    joints.next(45)
    asked = takeover.call_async(SetBool.Request(data=False))
    assert stack.client.wait_for(asked, 5.0, "the handing back").success
    return sum(joints.last.position[7:])


def test_the_gripper_opens_as_far_as_it_is_told(stack, joints):
    for opening_m in (0.05, 0.02):
        assert operated_opening(stack, joints, opening_m) == pytest.approx(opening_m, abs=3e-3)


def test_where_the_cameras_stop_the_goal_fails_and_the_arm_holds(stack, joints):
    stack.client.reset(0)
    goal = stack.client.send(INSTRUCTION, max_steps=10_000)
    wait(lambda: speed(joints, 2) > 0.02)
    change(stack, camera_dropout=1.0)
    try:
        began_s = time.monotonic()
        result = goal.result(20.0)
        assert result.outcome is Outcome.FAILED
        assert "frame" in result.reason
        assert time.monotonic() - began_s < 2.5
        wait(lambda: speed(joints) < 0.02, 2.0)
    finally:
        change(stack, camera_dropout=0.0)


def test_where_joint_states_stop_the_arm_holds(stack, joints):
    states = []
    stack.client.on_safety_state(states.append)
    stack.client.reset(0)
    goal = stack.client.send(INSTRUCTION, max_steps=10_000)
    wait(lambda: speed(joints, 2) > 0.02)
    change(stack, joint_dropout=1.0)
    try:
        # Without joint states the policy has no frame either: whichever goes stale first is the reason.
        wait(lambda: states[-1].state == "HOLDING", 2.0)
        assert "joint" in states[-1].reason or "command" in states[-1].reason
    finally:
        change(stack, joint_dropout=0.0)
        goal.cancel()
    joints.next(10)
    assert speed(joints) < 0.02


def test_joint_trajectories_and_the_parallel_grippers_action_move_the_arm_too(
    tiny_checkpoint, tmp_path, interface_packages
):
    # The simulated arm lags a tenth of a second behind its trajectory, more than a real one.
    outputs = {
        "arm_output": "joint_trajectory",
        "gripper_output": "parallel_gripper_command",
        "joint_tracking_rad": 0.4,
    }
    inputs = {"arm_interface": "joint_trajectory", "gripper_interface": "parallel_gripper_command"}
    with Stack(make_config(tiny_checkpoint, tmp_path, outputs, inputs)) as stack:
        joints = Topic(stack.client.node, JointState, graph.JOINT_STATES, FRAMES)
        stack.client.reset(0)
        stack.client.arm()
        start = tool(joints.next()[0][1])
        assert stack.client.follow(INSTRUCTION, max_steps=40, timeout_s=60.0).outcome is Outcome.TIMEOUT
        wait(lambda: speed(joints) < 0.02)
        assert np.linalg.norm(tool(joints.next()[0][1]) - start) > 0.005
        logs = "".join((tmp_path / f"{name}.log").read_text() for name in ("safety", "simulator"))
        assert "does not follow" not in logs
        assert "gripper" not in logs.replace("gripper_command", ""), "neither refused nor missing"
        assert operated_opening(stack, joints, 0.05) == pytest.approx(0.05, abs=3e-3)
