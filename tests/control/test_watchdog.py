"""The state machine of the safety node, by hand and exhaustively: no way leads from a stop to motion but arming."""

import itertools

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deer_policies.errors import ConfigError
from deer_ros.control.gate import GateSettings, SafetyGate
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.control.watchdog import GateState, Watchdog, WatchdogSettings
from tests.control.test_safety import LIMITS

JOINTS = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
FORWARD = np.array((0.5, 0, 0, 0, 0, 0, 1), np.float32)
SETTINGS = WatchdogSettings(command_timeout_s=0.1, joint_timeout_s=0.5, image_timeout_s={"static": 0.3})


def fresh(arm_on_start=True):
    watchdog = Watchdog(SETTINGS, arm_on_start)
    watchdog.activate()
    watchdog.joints(0.0)
    watchdog.image("static", 0.0)
    return watchdog


EVENTS = {
    "stop": lambda watchdog: watchdog.stop("test"),
    "press": lambda watchdog: watchdog.press(True),
    "let go": lambda watchdog: watchdog.press(False),
    "arm": lambda watchdog: watchdog.arm(),
    "take over": lambda watchdog: watchdog.take_over(),
    "hand back": lambda watchdog: watchdog.hand_back(),
    "command": lambda watchdog: watchdog.command(0.0, ""),
    "operate": lambda watchdog: watchdog.operate(0.0, ""),
    "refuse": lambda watchdog: watchdog.refuse("bad"),
    "check": lambda watchdog: watchdog.check(0.05),
    "stale": lambda watchdog: watchdog.check(9.0),
    "deactivate": lambda watchdog: watchdog.deactivate(),
    "activate": lambda watchdog: watchdog.activate(),
}


@pytest.mark.parametrize("stopped_by", ["stop", "press"])
@pytest.mark.parametrize("arm_on_start", [True, False])
def test_every_sequence_of_four_events_after_a_stop_needs_arming_to_pass(stopped_by, arm_on_start):
    """All 13**4 of them; where `arm` is among them and the e-stop was let go, some do pass."""
    passed = 0
    for names in itertools.product(EVENTS, repeat=4):
        watchdog = fresh(arm_on_start)
        watchdog.command(0.0, "")
        EVENTS[stopped_by](watchdog)
        for name in names:
            EVENTS[name](watchdog)
            if watchdog.passes:
                armed_at = names.index("arm")
                assert stopped_by != "press" or "let go" in names[:armed_at] or "let go" in names, names
                passed += 1
                break
    assert passed > 0


def test_the_table_of_transitions():
    """From each state by each event to where; what is not named stays."""
    ways = {
        GateState.STOPPED: ("press",),
        GateState.HOLDING: (),
        GateState.ARMED: ("command",),
        GateState.TAKEN_OVER: ("take over",),
    }
    expected = {
        GateState.STOPPED: {},
        GateState.HOLDING: {
            **dict.fromkeys(("stop", "press", "deactivate"), GateState.STOPPED),
            "take over": GateState.TAKEN_OVER,
            "command": GateState.ARMED,
        },
        GateState.ARMED: {
            **dict.fromkeys(("stop", "press", "deactivate"), GateState.STOPPED),
            **dict.fromkeys(("refuse", "stale", "activate"), GateState.HOLDING),
            "take over": GateState.TAKEN_OVER,
        },
        GateState.TAKEN_OVER: {
            **dict.fromkeys(("stop", "press", "deactivate"), GateState.STOPPED),
            **dict.fromkeys(("hand back", "activate"), GateState.HOLDING),
        },
    }
    for state, way in ways.items():
        for name, event in EVENTS.items():
            watchdog = fresh()
            for step in way:
                EVENTS[step](watchdog)
            assert watchdog.state is state
            event(watchdog)
            assert watchdog.state is expected[state].get(name, state), (state, name)


def test_arming_is_refused_while_pressed_or_inactive_and_says_why():
    watchdog = fresh()
    watchdog.press(True)
    assert "pressed" in watchdog.arm()
    watchdog.press(False)
    watchdog.deactivate()
    assert "not active" in watchdog.arm()
    watchdog.activate()
    assert watchdog.state is GateState.STOPPED
    assert watchdog.arm() == ""
    assert watchdog.state is GateState.HOLDING


def test_the_first_reason_of_a_stop_stays():
    watchdog = fresh()
    watchdog.stop("somebody fell")
    watchdog.press(True)
    assert watchdog.reason == "somebody fell"


def test_a_command_from_before_a_stop_counts_no_more():
    watchdog = fresh()
    watchdog.command(0.0, "")
    watchdog.stop("test")
    watchdog.arm()
    assert watchdog.state is GateState.HOLDING
    watchdog.take_over()
    assert not watchdog.passes


@pytest.mark.parametrize(
    ("late", "words"), [("command", "no command"), ("joints", "joint state"), ("static", "no image on static")]
)
def test_whatever_is_stale_holds(late, words):
    watchdog, now = fresh(), 1.0
    for name in {"command", "joints", "static"} - {late}:
        if name == "command":
            watchdog.command(now, "")
        elif name == "joints":
            watchdog.joints(now)
        else:
            watchdog.image(name, now)
    if late == "command":
        watchdog.command(now - 0.11, "")
    watchdog.check(now)
    assert watchdog.state is GateState.HOLDING
    assert words in watchdog.reason


def test_an_operator_needs_no_camera():
    watchdog = fresh()
    watchdog.take_over()
    watchdog.joints(1.0)
    watchdog.operate(1.0, "")
    watchdog.check(1.05)
    assert watchdog.passes
    watchdog.check(1.2)
    assert not watchdog.passes
    assert watchdog.state is GateState.TAKEN_OVER


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["command_timeout_s", "joint_timeout_s", "image_timeout_s"])
def test_timeouts_cannot_be_turned_off(name, value):
    values = {"command_timeout_s": 0.1, "joint_timeout_s": 0.1, name: {"static": value} if "image" in name else value}
    with pytest.raises(ConfigError, match=name):
        WatchdogSettings(**values)


class Stops(RuleBasedStateMachine):
    """Anything may happen at any time; the gate's own output is what is judged."""

    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        self.pressed = False
        self.may_move = True
        self.latched = False
        self.moving = False

    @initialize(arm_on_start=st.booleans(), per_action=st.booleans())
    def begin(self, arm_on_start, per_action):
        watchdog = Watchdog(SETTINGS, arm_on_start)
        settings_ = GateSettings(30.0, 0.3, brake_time_s=0.08, per_action=per_action)
        self.gate = SafetyGate(LIMITS, watchdog, ArmGeometry(base_position_m=(-0.34, -0.46, 0.24)), settings_)
        watchdog.activate()
        self.active = True
        self.sense()

    def sense(self):
        self.gate.joints(JOINTS, self.now_s)
        self.gate.watchdog.image("static", self.now_s)

    @rule(seconds=st.sampled_from((0.001, 0.02, 0.11, 1.0)))
    def pass_time(self, seconds):
        self.now_s += seconds

    @rule()
    def good_action(self):
        self.sense()
        self.gate.action(FORWARD, self.now_s)

    @rule(values=st.sampled_from((np.full(7, np.nan), np.zeros(6), np.full(7, 3.0))))
    def bad_action(self, values):
        self.gate.action(values, self.now_s)

    @rule()
    def operate(self):
        self.sense()
        self.gate.operate(np.array((0.1, 0, 0)), np.zeros(3), self.now_s)

    @rule()
    def stop(self):
        self.gate.stop("test", self.now_s)
        self.latched = True

    @rule(pressed=st.booleans())
    def button(self, pressed):
        self.gate.watchdog.press(pressed)
        self.pressed = pressed
        self.latched |= pressed

    @rule()
    def arm(self):
        self.gate.watchdog.arm()
        self.latched &= self.pressed or not self.active

    @rule()
    def take_over(self):
        self.gate.watchdog.take_over()

    @rule()
    def hand_back(self):
        self.gate.watchdog.hand_back()

    @rule(active=st.booleans())
    def change_activity(self, active):
        self.gate.watchdog.activate() if active else self.gate.watchdog.deactivate()
        self.active = active

    @invariant()
    def no_motion_after_a_stop(self):
        if not hasattr(self, "gate"):
            return
        command = self.gate.advance(self.now_s, 0.01)
        moves = command is not None and bool(command.twist.linear.any() or command.twist.angular.any())
        assert not (moves and (self.latched or self.pressed or not self.active))


TestStops = Stops.TestCase
TestStops.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
