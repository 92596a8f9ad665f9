"""The policy node with a policy that answers with three actions at a time: a frame each, and what drops the rest."""

import threading

import numpy as np
import pytest
import rclpy
from deer_msgs.msg import ExitReport as ExitReportMessage
from deer_msgs.msg import PolicyAction, SafetyState
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor

from deer_policies.interfaces import ActionChunk, Budget, ExitReport, PolicyInfo
from deer_ros import graph
from deer_ros.bringup import free_domain_id
from deer_ros.client import StackClient
from deer_ros.conversions import stamp_to_ns
from deer_ros.nodes.policy_node import PolicyNode
from deer_ros.nodes.safety_node import SafetyNode
from deer_ros.quality import COMMANDS, LATCHED
from deer_ros.reports import Outcome
from tests.ros.node_rig import DEADLINE_S, wait
from tests.ros.policy_rig import Rig

HORIZON = 3


class Gazing:
    """Its three actions follow from the brightness of what it sees, and from its state."""

    info = PolicyInfo("gazing", (0,), horizon=HORIZON)
    budget = Budget()

    def set_budget(self, budget):
        raise NotImplementedError

    def initial_state(self):
        return 0

    def step(self, observation, state):
        light = observation.rgb_static[40:160, 40:160].mean() / 255 + observation.rgb_gripper.mean() / 255
        turns = np.sin(light * 20 + state + np.arange(HORIZON)[:, None] + np.arange(7))
        actions = np.clip(0.6 * turns, -1, 1).astype(np.float32)
        actions[:, 6] = -1.0
        return ActionChunk(actions), state + 1, ExitReport(0, 0, (), (1.0,), 1.0, 1.0, 1.0, 1.0, 0.1)


def test_chunks_in_lockstep_are_the_same_as_a_rollout_in_one_process():
    """The simulator, the safety node and the policy node over ROS, against `deer_sim.rollout`."""
    pytest.importorskip("pybullet")
    from deer_ros.nodes.simulator_node import SimulatorNode
    from deer_sim.playtable.environment import PlayTable
    from deer_sim.rollout import PolicyActor, rollout

    steps, domain_id = 11, free_domain_id()
    rclpy.init(args=["--ros-args", "--params-file", str(graph.CONFIG_FOLDER / "simulation.yaml")], domain_id=domain_id)
    nodes = [SimulatorNode(), SafetyNode(), PolicyNode(lambda *_: Gazing())]
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    client = StackClient(domain_id)
    try:
        received = []
        client.node.create_subscription(PolicyAction, graph.POLICY_ACTION, received.append, COMMANDS)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            for name in ("simulator", "safety", "policy"):
                client.change_state(name, transition, DEADLINE_S)
        client.wait_ready(DEADLINE_S)
        client.reset(7)
        feedback = []
        result = client.follow("go", feedback.append, max_steps=steps, timeout_s=60.0)
        wait(lambda: received and not stamp_to_ns(received[-1].header.stamp))
    finally:
        client.close()
        executor.shutdown()
        thread.join(DEADLINE_S)
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    # On a slow machine a frame is sent, and answered, more than once.
    over_ros = list({message.step: message for message in received[:-1]}.values())
    assert (result.outcome, result.steps, len(over_ros)) == (Outcome.TIMEOUT, steps, steps)
    assert [item.step for item in feedback] == [1, 4, 7, 10]
    assert [message.chunk_index for message in over_ros] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    alone = []
    with PlayTable("D") as table:
        first = table.reset(7)
        rollout(
            table, PolicyActor(Gazing()), "open_drawer", "go", first, steps, lambda _, action, __: alone.append(action)
        )
    # Twists and back round in the last digits, which moves the brightness of a picture in the fifth.
    np.testing.assert_allclose([message.action for message in over_ros], alone, atol=2e-3)


@pytest.fixture(scope="module")
def running():
    made = Rig(HORIZON)
    made.reports = []
    made.client.node.create_subscription(ExitReportMessage, graph.EXIT_REPORT, made.reports.append, COMMANDS)
    made.bring_up()
    yield made
    made.close()


@pytest.fixture
def rig(running):
    running.policy.step_time_s = 0.0
    for noted in (running.policy.seen, running.actions, running.reports):
        del noted[:]
    return running


def begin(rig, instruction="go", max_steps=1000):
    """Sends an instruction and waits until the node follows it."""
    goal = rig.client.send(instruction, max_steps)
    wait(lambda: rig.node._goal is not None and rig.node._goal.instruction == instruction)
    return goal


def answered(rig, **frame):
    """Shows a frame and returns its answer."""
    count = len(rig.actions)
    rig.show(**frame)
    wait(lambda: len(rig.actions) > count)
    return rig.actions[count]


def places(actions):
    """Number of the policy's step and place in its chunk, of each action, as its values and its message tell them."""
    found = [(round(100 * float(message.action[0])), message.chunk_index) for message in actions]
    assert [round(10 * float(message.action[1])) for message in actions] == [index for _, index in found]
    return found


def test_the_actions_of_a_chunk_answer_the_frames_one_by_one(rig):
    goal = begin(rig, max_steps=5)
    stamps = []
    for _ in range(5):
        answered(rig)
        stamps.append(rig.stamp_ns)
    assert places(rig.actions) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert [message.step for message in rig.actions] == [1, 2, 3, 4, 5]
    assert [stamp_to_ns(message.header.stamp) for message in rig.actions] == stamps
    assert [stamp_to_ns(message.header.stamp) for message in rig.reports] == [stamps[0], stamps[3]]
    assert [report.step for report in rig.reports] == [1, 4]
    assert [round(observation.time_s * 1e9) for observation, _ in rig.policy.seen] == [stamps[0], stamps[3]]
    rig.show()
    result = goal.result(DEADLINE_S)
    assert (result.outcome, result.steps) == (Outcome.TIMEOUT, 5)
    wait(lambda: len(rig.actions) == 6)
    assert not rig.actions[-1].action[:6].any(), "what was left of the second chunk is dropped"


def test_a_frame_that_is_sent_again_gets_the_same_action_again(rig):
    goal = begin(rig)
    answered(rig)
    second = answered(rig)
    assert answered(rig, new=False) == second
    assert places([answered(rig)]) == [(1, 2)]
    assert goal.cancel()


def test_a_new_instruction_drops_the_chunk(rig):
    begin(rig)
    answered(rig)
    goal = begin(rig, "wave")
    wait(lambda: len(rig.actions) == 2)
    assert not rig.actions[1].action[:6].any()
    assert places([answered(rig), answered(rig)]) == [(1, 0), (1, 1)]
    assert [observation.instruction for observation, _ in rig.policy.seen] == ["go", "wave"]
    assert goal.cancel()


def test_a_gap_drops_the_chunk(rig):
    goal = begin(rig)
    answered(rig)
    rig.stamp_ns += 10**9
    assert places([answered(rig), answered(rig)]) == [(2, 0), (2, 1)]
    assert goal.cancel()


def test_frames_that_come_while_the_policy_thinks_are_answered_by_nobody(rig):
    rig.policy.step_time_s = 0.3
    goal = begin(rig)
    rig.show_until(lambda: rig.actions)
    rig.show_until(lambda: len(rig.actions) >= 3)
    assert len(rig.policy.seen) in (1, 2)
    assert rig.policy.seen[0][1] == 0
    rig.show_until(lambda: len(rig.actions) >= 5)
    assert places(rig.actions[:5]) == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    stamps = [stamp_to_ns(message.header.stamp) for message in rig.actions]
    assert stamps[1] - stamps[0] >= 2 * 33_000_000, "the frames in between were skipped"
    assert stamps[2] - stamps[1] == 33_000_000
    assert goal.cancel()


def test_a_frame_that_grew_too_old_in_waiting_does_not_end_the_asking(rig):
    rig.policy.step_time_s = 1.0
    before = begin(rig)
    rig.show()
    wait(lambda: rig.policy.seen)
    assert before.cancel()
    goal = begin(rig, "wave")
    rig.show()
    rig.policy.step_time_s = 0.0
    wait(lambda: rig.node._goal.queue.awaiting)
    wait(lambda: not rig.node._goal.queue.awaiting)
    assert [observation.instruction for observation, _ in rig.policy.seen] == ["go"]
    assert places([answered(rig), answered(rig)]) == [(1, 0), (1, 1)]
    assert goal.cancel()


def nothing_more_is_said(rig):
    """Whether frames from now on stay without an answer."""
    wait(lambda: not rig.actions[-1].action[:6].any())
    count, seen = len(rig.actions), len(rig.policy.seen)
    for _ in range(4):
        rig.show()
        threading.Event().wait(0.03)
    return (len(rig.actions), len(rig.policy.seen)) == (count, seen)


def test_the_end_of_a_goal_drops_the_chunk(rig):
    goal = begin(rig)
    answered(rig)
    assert goal.cancel()
    assert nothing_more_is_said(rig)


def test_a_safety_stop_drops_the_chunk(rig):
    publisher = rig.client.node.create_publisher(SafetyState, graph.SAFETY_STATE, LATCHED)
    goal = begin(rig)
    answered(rig)
    publisher.publish(SafetyState(state=SafetyState.STOPPED, reason="e-stop"))
    assert goal.result(DEADLINE_S).outcome is Outcome.FAILED
    assert nothing_more_is_said(rig)
    publisher.publish(SafetyState(state=SafetyState.ARMED))
    wait(lambda: not rig.node._stopped)
    rig.client.node.destroy_publisher(publisher)


def test_deactivation_drops_the_chunk(rig):
    begin(rig)
    answered(rig)
    rig.change(Transition.TRANSITION_DEACTIVATE)
    assert nothing_more_is_said(rig)
    rig.change(Transition.TRANSITION_ACTIVATE)
    goal = begin(rig)
    assert places([answered(rig)]) == [(1, 0)]
    assert goal.cancel()
