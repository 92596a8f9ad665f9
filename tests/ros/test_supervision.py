"""Bringing up in order, bringing up again what came back, and ending everything when the safety node fails."""

import contextlib
import threading
import time

import pytest
import rclpy
from deer_msgs.msg import SafetyState
from lifecycle_msgs.msg import Transition
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future

from deer_policies.errors import ConfigError
from deer_ros import graph, supervision
from deer_ros.bringup import free_domain_id
from deer_ros.client import StackClient
from deer_ros.lifecycle import ManagedNode
from deer_ros.quality import LATCHED
from deer_ros.supervision import SupervisionSettings, Supervisor
from tests.ros.node_rig import wait


class Member(ManagedNode):
    """Notes what happens to it; configuring may fail. Named 'safety', it can speak as the safety node does."""

    def __init__(self, name, context, story, bad=False, slow_s=0.0):
        super().__init__(name, context=context)
        self.story, self.bad, self.slow_s = story, bad, slow_s
        self.voice = self.create_publisher(SafetyState, graph.SAFETY_STATE, LATCHED)
        self.create_timer(0.05, self.speak)
        self.speaks = name == "safety"

    def speak(self):
        if self.speaks:
            self.voice.publish(SafetyState())

    def set_up(self):
        time.sleep(self.slow_s)
        if self.bad:
            raise ConfigError("it can't be configured")
        self.story.append(f"{self.get_name()} configured")

    def start(self):
        self.story.append(f"{self.get_name()} active")

    def halt(self, reason):
        self.story.append(f"{self.get_name()} inactive")

    def release(self):
        pass


class Troop:
    """Members in one thread, and a supervisor on a client's node."""

    def __init__(self):
        self.domain_id = free_domain_id()
        self.story, self.ups, self.failures = [], [], []
        self.parts = []
        self.client = StackClient(self.domain_id)

    def start(self, name, **how):
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=self.domain_id)
        member = Member(name, context, self.story, **how)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(member)

        def spin():
            with contextlib.suppress(ExternalShutdownException):
                executor.spin()

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()
        self.parts.append((context, member, executor, thread))
        return member

    def end(self, member):
        context, _, executor, thread = next(part for part in self.parts if part[1] is member)
        executor.shutdown()
        thread.join(5.0)
        member.destroy_node()
        context.try_shutdown()
        self.parts = [part for part in self.parts if part[1] is not member]

    def supervise(self, *names, **settings):
        settings = SupervisionSettings(names, **settings)
        self.supervisor = Supervisor(
            self.client.node,
            settings,
            lambda: self.ups.append(time.monotonic()),
            lambda *why: self.failures.append(why),
        )

    def close(self):
        for _, member, _, _ in list(self.parts):
            self.end(member)
        self.client.close()


@pytest.fixture
def troop():
    made = Troop()
    yield made
    made.close()


def test_nodes_come_up_one_after_the_other_whenever_they_appear(troop):
    troop.supervise("safety", "policy")
    troop.start("policy")
    time.sleep(0.5)
    assert troop.story == []
    troop.start("safety")
    wait(lambda: troop.ups)
    assert troop.story == ["safety configured", "safety active", "policy configured", "policy active"]
    assert not troop.failures


def test_a_node_that_cannot_configure_ends_it_and_takes_the_others_down(troop):
    troop.start("safety")
    troop.start("policy", bad=True)
    troop.supervise("safety", "policy")
    wait(lambda: troop.failures)
    assert troop.failures == [("node policy can't configure; its log says why", "policy")]
    wait(lambda: troop.story[-1] == "safety inactive")
    assert not troop.ups


def test_a_node_that_never_comes_is_named(troop):
    troop.start("safety")
    troop.supervise("safety", "policy", timeout_s=1.0)
    wait(lambda: troop.failures)
    assert "policy did not come up within 1 s" in troop.failures[0][0]


def test_an_answer_that_got_lost_is_made_up_for(troop, monkeypatch):
    """Under load, ROS 2 loses answers of services; here the one to the first transition never comes."""
    monkeypatch.setattr(supervision, "ANSWER_S", 0.3)
    troop.start("safety")
    ask, asked = supervision._Peer._ask, []

    def lose_first(peer, now_s, transition):
        ask(peer, now_s, transition)
        if transition is not None:
            asked.append(transition)
            if len(asked) == 1:
                peer._future = Future()

    monkeypatch.setattr(supervision._Peer, "_ask", lose_first)
    troop.supervise("safety")
    wait(lambda: troop.ups)
    assert troop.story == ["safety configured", "safety active"]


def test_a_transition_that_takes_for_ever_is_a_failure(troop):
    troop.start("safety", slow_s=3.0)
    troop.supervise("safety", timeout_s=0.8)
    wait(lambda: troop.failures)
    assert troop.failures == [("node safety did not configure within 0.8 s", "safety")]


def test_a_silent_safety_node_ends_everything(troop):
    safety = troop.start("safety")
    troop.start("policy")
    troop.supervise("safety", "policy", safety_silence_s=0.5)
    wait(lambda: troop.ups)
    time.sleep(0.7)
    assert not troop.failures
    silent_s = time.monotonic()
    safety.speaks = False
    wait(lambda: troop.failures)
    assert time.monotonic() - silent_s < 1.5
    assert troop.failures == [("nothing was heard of the safety node for 0.5 s", "safety")]
    wait(lambda: "policy inactive" in troop.story)


def test_a_node_that_was_started_anew_is_brought_up_again_and_one_deactivated_by_hand_is_not(troop):
    troop.start("safety")
    first = troop.start("policy")
    troop.supervise("safety", "policy")
    wait(lambda: troop.ups)
    troop.client.change_state("policy", Transition.TRANSITION_DEACTIVATE)
    time.sleep(1.2)
    assert troop.story[-1] == "policy inactive"
    troop.end(first)
    del troop.story[:]
    troop.start("policy")
    wait(lambda: len(troop.ups) == 2)
    assert troop.story == ["policy configured", "policy active"]
    assert not troop.failures


@pytest.mark.parametrize("settings", [{"names": ("a", "a")}, {"names": ("a",), "safety_silence_s": float("inf")}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        SupervisionSettings(**settings)
