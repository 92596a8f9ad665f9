"""Real processes over real ROS 2: simulator, safety and policy nodes, driven through the client."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from deer_policies.errors import BudgetError, SimulatorError
from deer_policies.interfaces import Budget
from deer_ros import graph
from deer_ros.bringup import Stack, StackConfig
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.conversions import ns_to_stamp, rgb_to_image, stamp_to_ns, stamp_to_s
from deer_ros.errors import StackError
from deer_ros.quality import COMMANDS, FRAMES
from deer_ros.reports import Outcome

pytest.importorskip("pybullet")

DEADLINE_S = 20.0
INSTRUCTION = "open the drawer"

LIST_TOPICS = """
import json, rclpy, time
rclpy.init()
node = rclpy.create_node("onlooker")
deadline = time.monotonic() + 15
while time.monotonic() < deadline:
    found = dict(node.get_topic_names_and_types())
    if {wanted} <= set(found):
        break
    time.sleep(0.1)
print(json.dumps(found))
"""


def make_config(checkpoint, folder, **simulator):
    return StackConfig(
        overrides={"policy": {"policy": str(checkpoint)}, "simulator": simulator}, log_folder=folder / "logs"
    )


def until(condition, deadline_s=DEADLINE_S):
    """Waits for the condition; False if it does not come true in time."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Recorder:
    """Keeps every message of a topic with the time at which it came in."""

    def __init__(self, client, kind, topic, quality=COMMANDS):
        self.messages = []
        client.node.create_subscription(kind, topic, self._add, quality)

    def _add(self, message):
        self.messages.append((time.monotonic(), message))

    def since(self, moment_s):
        return [message for received_s, message in list(self.messages) if received_s > moment_s]


@pytest.fixture(scope="module")
def stack(tiny_checkpoint, tmp_path_factory):
    with Stack(make_config(tiny_checkpoint, tmp_path_factory.mktemp("lockstep"))) as running:
        yield running


@pytest.fixture(scope="module")
def actions(stack):
    from deer_msgs.msg import PolicyAction

    return Recorder(stack.client, PolicyAction, graph.POLICY_ACTION)


@pytest.fixture(scope="module")
def joints(stack):
    from sensor_msgs.msg import JointState

    return Recorder(stack.client, JointState, graph.JOINT_STATES, FRAMES)


@pytest.fixture(scope="module")
def safety(stack):
    states = []
    stack.client.on_safety_state(states.append)
    return states


@pytest.fixture(scope="module")
def reports(stack):
    found = []
    stack.client.on_exit_report(found.append)
    return found


def test_another_process_sees_the_topics_with_their_types(stack):
    wanted = {
        "/camera/static/image_raw": "sensor_msgs/msg/Image",
        "/camera/gripper/image_raw": "sensor_msgs/msg/Image",
        "/joint_states": "sensor_msgs/msg/JointState",
        "/clock": "rosgraph_msgs/msg/Clock",
        "/instruction": "std_msgs/msg/String",
        "/policy/action": "deer_msgs/msg/PolicyAction",
        "/policy/exit_report": "deer_msgs/msg/ExitReport",
        "/arm/twist": "geometry_msgs/msg/TwistStamped",
        "/gripper/command": "std_msgs/msg/Float64",
        "/safety/state": "deer_msgs/msg/SafetyState",
        "/subtask_done": "deer_msgs/msg/SubtaskDone",
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }
    script = LIST_TOPICS.replace("{wanted}", repr(set(wanted)))
    output = subprocess.run(
        [sys.executable, "-c", script], env=stack.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=40
    )
    found = json.loads(output.stdout)
    assert {name: found.get(name) for name in wanted} == {name: [kind] for name, kind in wanted.items()}


def test_lockstep_is_the_same_as_a_rollout_in_one_process(stack, actions, tiny_checkpoint):
    """The same policy on the same start gives the same actions, over ROS and its safety node as without.

    The pose in the proprioception is that of the joints in both; CALVIN's robot_obs has it one physics step late. Both
    tables are moved by the same numbers: what differs in the seventh digit moves an edge by a pixel some steps later.
    """
    from deer_policies.deer.checkpoint import load_policy
    from deer_sim.playtable.environment import PlayTable

    steps = 12
    stack.client.reset(7)
    began_s = time.monotonic()
    assert stack.client.follow(INSTRUCTION, max_steps=steps, timeout_s=60.0).outcome is Outcome.TIMEOUT
    assert until(lambda: len(actions.since(began_s)) == steps + 1)
    over_ros = np.array([message.action for message in actions.since(began_s)])

    policy = load_policy(tiny_checkpoint)
    state = policy.initial_state()
    with PlayTable("D") as environment:
        now = environment.reset(7)
        alone = []
        for executed in over_ros[:steps]:
            seen = now.observation(INSTRUCTION)
            seen.proprioception[:6] = np.concatenate(ArmGeometry().tcp_pose(now.robot_obs[7:14]))
            chunk, state, _ = policy.step(seen, state)
            alone.append(chunk.first.values)
            now = environment.step(executed)
    np.testing.assert_allclose(over_ros[:steps], np.array(alone), atol=1e-5)
    assert not over_ros[steps, :6].any(), "the last message of a goal is a hold"


def test_feedback_and_reports_tell_of_each_step(stack, reports):
    del reports[:]
    feedback = []
    result = stack.client.follow(INSTRUCTION, feedback.append, max_steps=5, timeout_s=60.0)
    assert result.steps == 5
    assert [item.step for item in feedback] == [1, 2, 3, 4, 5]
    assert until(lambda: len(reports) == 5)
    for item, report in zip(feedback, reports, strict=True):
        assert item.exit_index == report.report.exit_index
        assert 0 < item.llm_gmac <= item.full_llm_gmac
        assert report.report.total_gmac <= report.report.full_total_gmac
    stamps = [report.stamp_s for report in reports]
    np.testing.assert_allclose(np.diff(stamps), 1 / 30, atol=1e-6)


def test_cancel_stops_motion_at_once(stack, actions, joints):
    stack.client.reset(1)
    began_s = time.monotonic()
    goal = stack.client.send(INSTRUCTION)
    assert until(lambda: len(actions.since(began_s)) >= 3)
    asked_s = time.monotonic()
    assert goal.cancel()
    acknowledged_s = time.monotonic()
    assert acknowledged_s - asked_s < 0.5
    time.sleep(0.05)
    quiet_from_s = time.monotonic()
    last = actions.messages[-1][1]
    time.sleep(0.6)
    assert not actions.since(quiet_from_s)
    assert not last.action[:6].any()
    assert stamp_to_ns(last.header.stamp) == 0
    stamps = {stamp_to_s(message.header.stamp) for message in joints.since(acknowledged_s)}
    assert len(stamps) <= 2, "one step at most was under way"
    assert goal.result(DEADLINE_S).outcome is Outcome.CANCELLED


def test_a_budget_takes_effect_at_the_next_step(stack, reports):
    client = stack.client
    tight = Budget(average_llm_gmac=0.012)
    del reports[:]
    told = []

    def change(feedback):
        if feedback.step == 5:
            client.set_budget(tight)
            told.append(reports[-1].step)

    try:
        client.follow(INSTRUCTION, change, max_steps=15, timeout_s=60.0)
    finally:
        client.set_budget(Budget())
    assert until(lambda: len(reports) == 15)
    after = told[0] + 2  # one step may have been under way
    assert all(report.budget_average_llm_gmac == 0.0 for report in reports if report.step <= 5)
    assert all(report.budget_average_llm_gmac == 0.012 for report in reports if report.step >= after)
    assert reports[-1].report.thresholds != reports[0].report.thresholds
    with pytest.raises(BudgetError, match="at least"):
        client.set_budget(Budget(peak_llm_gmac=1e-6))


def test_the_simulator_judges_the_subtask(stack):
    """The switch starts up with the bulb dark, so the bulb is lit after the first step, whatever the policy does."""
    from deer_sim.playtable.environment import PlayTable

    with PlayTable("D", cameras=False) as environment:
        scene_obs = environment.reset(0).scene_obs
    scene_obs[3] = 0.07
    stack.client.reset(0, scene_obs=scene_obs)
    stack.client.begin_subtask("turn_on_lightbulb")
    result = stack.client.follow("switch on the light", timeout_s=60.0)
    assert (result.outcome, result.reason, result.steps) == (Outcome.DONE, "turn_on_lightbulb is done", 1)


def test_a_judgement_from_before_the_goal_does_not_count(stack):
    """It does not end the goal, one of a later frame does; a person at a real table may be who judges."""
    from deer_msgs.msg import SubtaskDone

    client = stack.client
    publisher = client.node.create_publisher(SubtaskDone, graph.SUBTASK_DONE, COMMANDS)
    client.reset(1)
    goal = client.send(INSTRUCTION)
    late = SubtaskDone(task="open_drawer")
    publisher.publish(late)
    time.sleep(0.3)
    done = SubtaskDone(task="open_drawer")
    done.header.stamp.sec = 2_000_000_000
    publisher.publish(done)
    result = goal.result(DEADLINE_S)
    assert (result.outcome, result.reason) == (Outcome.DONE, "open_drawer is done")
    assert result.steps > 0


@pytest.mark.parametrize(("instruction", "reason"), [("  ", "empty"), ("x" * 600, "600 characters")])
def test_bad_instructions_fail_with_the_reason(stack, actions, instruction, reason):
    began_s = time.monotonic()
    result = stack.client.follow(instruction, timeout_s=DEADLINE_S)
    assert result.outcome is Outcome.FAILED
    assert reason in result.reason
    assert not actions.since(began_s)


def test_bad_images_are_dropped_and_nothing_is_lost(stack):
    """Another publisher sends an unknown encoding and a wrong size between the good frames."""
    from sensor_msgs.msg import Image

    publisher = stack.client.node.create_publisher(Image, graph.STATIC_IMAGE, FRAMES)
    odd = Image(height=200, width=200, encoding="32FC1", step=800, data=np.full(40000, np.nan, np.float32).tobytes())
    small = rgb_to_image(np.zeros((20, 20, 3), np.uint8), ns_to_stamp(5), "")

    def disturb(feedback):
        publisher.publish(odd)
        publisher.publish(small)

    result = stack.client.follow(INSTRUCTION, disturb, max_steps=8, timeout_s=60.0)
    stack.client.node.destroy_publisher(publisher)
    assert (result.outcome, result.steps) == (Outcome.TIMEOUT, 8)
    log = (stack.config.log_folder / "policy.log").read_text()
    assert "'32FC1' can't be read" in log
    assert "(20, 20, 3)" in log


def test_bad_actions_become_standstill(stack, joints, safety):
    """Somebody else's action out of range and not finite: the safety node refuses, says why, and the arm stays."""
    from deer_msgs.msg import PolicyAction

    publisher = stack.client.node.create_publisher(PolicyAction, graph.POLICY_ACTION, COMMANDS)
    assert until(lambda: publisher.get_subscription_count() > 0)
    stack.client.reset(2)
    before = joints.messages[-1][1].position
    for value in (5.0, float("nan")):
        del safety[:]
        action = PolicyAction()
        action.action = np.array([value, 0, 0, 0, 0, 0, 1], np.float32)
        publisher.publish(action)
        assert until(lambda: any("action" in state.reason for state in safety)), value
        assert all(state.state == "HOLDING" for state in safety)
    stack.client.node.destroy_publisher(publisher)
    time.sleep(0.3)
    np.testing.assert_array_equal(joints.messages[-1][1].position, before)


def test_a_stop_ends_the_goal_and_stays_until_armed(stack, actions, safety):
    client = stack.client
    began_s = time.monotonic()
    goal = client.send(INSTRUCTION)
    assert until(lambda: len(actions.since(began_s)) >= 2)
    client.stop()
    result = goal.result(DEADLINE_S)
    assert result.outcome is Outcome.FAILED
    assert "safety/stop" in result.reason
    assert safety[-1].state == "STOPPED"
    assert "safety/arm" in client.follow(INSTRUCTION, timeout_s=DEADLINE_S).reason
    client.arm()
    assert until(lambda: safety[-1].state == "HOLDING")
    assert client.follow(INSTRUCTION, max_steps=2, timeout_s=DEADLINE_S).outcome is Outcome.TIMEOUT


def test_the_simulator_refuses_what_it_does_not_know(stack):
    with pytest.raises(SimulatorError, match="make_coffee"):
        stack.client.begin_subtask("make_coffee")
    with pytest.raises(SimulatorError, match="robot_obs"):
        stack.client.reset(0, robot_obs=[1.0, 2.0])


def test_a_newer_instruction_replaces_the_one_before(stack):
    client = stack.client
    first = client.send(INSTRUCTION)
    second = client.send("switch on the light", max_steps=2)
    assert second.result(DEADLINE_S).outcome is Outcome.TIMEOUT
    result = first.result(DEADLINE_S)
    assert result.outcome is Outcome.CANCELLED
    assert "switch on the light" in result.reason


def test_in_real_time_the_arm_holds_when_the_policy_is_killed(tiny_checkpoint, tmp_path):
    """And when the safety node is killed, everything ends."""
    from sensor_msgs.msg import JointState

    with Stack(make_config(tiny_checkpoint, tmp_path, mode="real_time")) as stack:
        states = []
        stack.client.on_safety_state(states.append)
        joints = Recorder(stack.client, JointState, graph.JOINT_STATES, FRAMES)
        outcome = {}

        def follow():
            try:
                stack.client.follow(INSTRUCTION, max_steps=10_000)
            except StackError as error:
                outcome["error"] = str(error)

        following = threading.Thread(target=follow)
        following.start()
        assert until(lambda: states and states[-1].state == "ARMED")
        stack.processes["policy"].kill()
        assert until(lambda: states[-1].state == "HOLDING", 3.0)
        assert "no command" in states[-1].reason
        following.join(DEADLINE_S)
        assert "policy was ended by SIGKILL" in outcome["error"]

        def wait_simulated(seconds):
            """The world goes on; returns the joint state that much later."""
            from_s = stamp_to_s(joints.messages[-1][1].header.stamp)
            assert until(lambda: stamp_to_s(joints.messages[-1][1].header.stamp) > from_s + seconds)
            return joints.messages[-1][1]

        settled, later = wait_simulated(0.6), wait_simulated(0.4)
        np.testing.assert_allclose(later.position, settled.position, atol=1e-3)

        stack.processes["safety"].kill()
        assert until(lambda: stack.failure is not None)
        assert until(lambda: all(process.poll() is not None for process in stack.processes.values()))
        with pytest.raises(StackError, match="safety was ended by SIGKILL"):
            stack.check()
