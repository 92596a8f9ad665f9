"""The safety gate: what passes, what becomes standstill, and what stays stopped."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.gate import GateSettings, SafetyGate
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.control.safety import SafetyLimits
from deer_ros.control.watchdog import GateState, Watchdog, WatchdogSettings

JOINTS = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
FORWARD = np.array((0.5, 0, 0, 0, 0, 0, 1), np.float32)
BACK = np.array((-0.5, 0, 0, 0, 0, 0, -1), np.float32)
WIDE = SafetyLimits((-1, -1, 0), (1, 1, 1.5), 1.05, 3.0, 70.0, 180.0, 1e4, 3e4, 0.0, 0.08, 30.0)
SLOW = SafetyLimits((-1, -1, 0), (1, 1, 1.5), 0.1, 0.5, 1.0, 3.0, 20.0, 60.0, 0.0, 0.08, 2.0)
PERIOD_S = 0.01
TIMEOUT_S = 0.1


def make_gate(arm_on_start=True, limits=WIDE, per_action=False, **settings):
    watchdog = Watchdog(WatchdogSettings(TIMEOUT_S, 0.5, {"static": 0.5}), arm_on_start)
    settings = {"hold_duration_s": 0.3, "brake_time_s": 0.05, "per_action": per_action, **settings}
    gate = SafetyGate(limits, watchdog, ArmGeometry(), GateSettings(30.0, **settings))
    watchdog.activate()
    sense(gate, 0.0)
    return gate


def sense(gate, now_s, **joints):
    gate.joints(JOINTS, now_s, **joints)
    gate.watchdog.image("static", now_s)


def moves(command):
    return command is not None and bool(command.twist.linear.any() or command.twist.angular.any())


def run(gate, from_s, to_s):
    """Commands by time, at the controller's rate."""
    times = np.arange(from_s, to_s, PERIOD_S)
    return [(now_s, gate.advance(now_s, PERIOD_S)) for now_s in times]


def test_a_good_action_passes_and_arms():
    gate = make_gate(per_action=True)
    assert gate.watchdog.state is GateState.HOLDING
    gate.action(FORWARD, 0.01)
    command = gate.advance(0.01, 1 / 30)
    np.testing.assert_allclose(command.twist.linear, (0.3, 0.0, 0.0), atol=1e-7)
    assert command.gripper_m == 0.08
    assert gate.watchdog.state is GateState.ARMED
    assert gate.watchdog.reason == ""


def test_between_actions_commands_go_on_at_the_controllers_rate():
    gate = make_gate(limits=SLOW)
    gate.action(FORWARD, 0.01)
    speeds = [command.twist.linear[0] for _, command in run(gate, 0.01, 0.07)]
    assert (np.diff([0.0, *speeds]) > 0.0).all()
    assert max(speeds) < 0.1


def test_without_new_actions_the_motion_fades_then_holds_then_falls_silent():
    gate = make_gate()
    gate.action(FORWARD, 0.01)
    commands = dict(run(gate, 0.01, 0.6))
    speed = {now_s: command.twist.linear[0] for now_s, command in commands.items() if command is not None}
    assert max(speed.values()) == pytest.approx(0.3)
    kept = [now_s for now_s, value in speed.items() if value > 0.0]
    assert 0.01 + 1 / 30 < max(kept) <= 0.01 + 2 / 30 + 2 * PERIOD_S, "kept for two periods, then faded"
    assert gate.watchdog.state is GateState.HOLDING
    assert "no command" in gate.watchdog.reason
    assert max(speed) == pytest.approx(0.01 + TIMEOUT_S + 0.3, abs=2 * PERIOD_S)
    sense(gate, 0.6)
    gate.action(FORWARD, 0.6)
    assert moves(gate.advance(0.6, PERIOD_S))


@pytest.mark.parametrize(
    "bad",
    [
        np.array((np.nan, 0, 0, 0, 0, 0, 1)),
        np.array((0, np.inf, 0, 0, 0, 0, 1)),
        np.array((1.5, 0, 0, 0, 0, 0, 1)),
        np.array((0, 0, 0, 0, 0, 0, 0.5)),
        np.zeros(6),
    ],
)
def test_a_bad_action_becomes_standstill_with_a_reason(bad):
    gate = make_gate()
    gate.action(FORWARD, 0.01)
    run(gate, 0.01, 0.03)
    gate.action(bad, 0.03)
    assert gate.watchdog.state is GateState.HOLDING
    assert "action" in gate.watchdog.reason
    held = run(gate, 0.03, 0.1)
    assert not any(moves(command) for now_s, command in held if now_s >= 0.03 + 0.05 - PERIOD_S / 2)


def test_bad_actions_between_good_ones_hold_until_they_cease():
    gate = make_gate()
    moved = []
    for now_s in np.arange(0.2, 2.0, 1 / 60):
        sense(gate, now_s, speeds_rad_s=np.full(7, 0.02))
        bad = now_s < 1.0 and round(now_s * 60) % 2 == 0
        gate.action(np.full(7, np.nan) if bad else FORWARD, now_s)
        if moves(gate.advance(now_s, 1 / 60)):
            moved.append(now_s)
    assert not [now_s for now_s in moved if now_s < 1.45]
    assert moved[0] < 1.55


def test_without_fresh_joints_or_images_nothing_moves():
    gate = make_gate()
    gate.action(FORWARD, 0.6)
    assert not moves(gate.advance(0.6, PERIOD_S))
    assert "joint state" in gate.watchdog.reason
    gate.joints(JOINTS, 0.6)
    gate.action(FORWARD, 0.61)
    assert not moves(gate.advance(0.61, PERIOD_S))
    assert "static" in gate.watchdog.reason
    gate.watchdog.image("static", 0.6)
    gate.action(FORWARD, 0.61)
    assert moves(gate.advance(0.61, PERIOD_S))


def test_joints_that_stop_in_the_middle_of_motion_hold():
    gate = make_gate()
    for now_s in np.arange(0.0, 0.6, PERIOD_S):
        gate.watchdog.image("static", now_s)
        gate.action(FORWARD, now_s)
        command = gate.advance(now_s, PERIOD_S)
        assert moves(command) or now_s > 0.5 + PERIOD_S
    assert gate.watchdog.state is GateState.HOLDING
    assert "joint state" in gate.watchdog.reason


def test_bad_joints_do_not_count_as_fresh():
    gate = make_gate()
    with pytest.raises(ConfigError):
        gate.joints(np.full(7, np.nan), 0.55)
    with pytest.raises(ConfigError):
        gate.joints(JOINTS, 0.55, np.full(7, np.inf))
    gate.action(FORWARD, 0.6)
    assert not moves(gate.advance(0.6, PERIOD_S))


def test_a_stop_is_at_once_and_latched_until_armed():
    gate = make_gate()
    gate.action(FORWARD, 0.01)
    assert moves(gate.advance(0.01, PERIOD_S))
    assert not moves(gate.stop("somebody pressed it", 0.02))
    gate.action(FORWARD, 0.03)
    assert not moves(gate.advance(0.03, PERIOD_S))
    assert gate.watchdog.state is GateState.STOPPED
    assert gate.watchdog.reason == "somebody pressed it"
    gate.watchdog.arm()
    assert gate.watchdog.state is GateState.HOLDING
    assert not moves(gate.advance(0.2, PERIOD_S))
    gate.action(FORWARD, 0.3)
    assert moves(gate.advance(0.3, PERIOD_S))


def test_not_armed_on_start_lets_nothing_pass():
    gate = make_gate(arm_on_start=False)
    gate.action(FORWARD, 0.01)
    assert not moves(gate.advance(0.01, PERIOD_S))
    assert gate.watchdog.state is GateState.STOPPED


def test_an_action_of_standstill_brakes_at_once():
    """The end of a goal; a smooth way to a slower target would take longer."""
    gate = make_gate(limits=SLOW)
    for now_s in np.arange(0.0, 0.3, PERIOD_S):
        sense(gate, now_s)
        gate.action(FORWARD, now_s)
        gate.advance(now_s, PERIOD_S)
    gate.action(np.array((0, 0, 0, 0, 0, 0, 1), np.float32), 0.3)
    moving = [now_s for now_s, command in run(gate, 0.3, 0.39) if moves(command)]
    assert moving
    assert max(moving) < 0.3 + 0.05


def test_motion_begins_with_what_the_arm_does():
    """The arm still drifts when the first action comes: the command goes on from there."""
    speeds = np.array((0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    measured = ArmGeometry().tcp_twist(JOINTS, speeds).linear
    gate = make_gate(limits=SLOW)
    sense(gate, 0.0, speeds_rad_s=speeds)
    gate.action(FORWARD, 0.01)
    command = gate.advance(0.01, PERIOD_S)
    np.testing.assert_allclose(command.twist.linear, measured, atol=SLOW.linear_jerk_m_s3 * PERIOD_S**2 * 1.01)
    assert np.linalg.norm(measured) > 0.01


def test_limits_are_told_as_the_reason():
    gate = make_gate(limits=SLOW)
    gate.action(FORWARD, 0.01)
    run(gate, 0.01, 0.06)
    assert gate.watchdog.state is GateState.ARMED
    assert "linear speed limited" in gate.watchdog.reason


def test_the_gripper_cannot_chatter():
    gate = make_gate(limits=SLOW)
    openings = []
    for now_s in np.arange(0.0, 2.0, 1 / 30):
        sense(gate, now_s)
        gate.action(FORWARD if len(openings) % 2 else BACK, now_s)
        openings.append(gate.advance(now_s, 1 / 30).gripper_m)
    assert np.count_nonzero(np.diff(openings)) <= 2.0 * SLOW.gripper_rate_hz
    assert np.count_nonzero(np.diff(openings)) >= 2


def test_a_flood_of_actions_holds_and_ends_with_it():
    gate = make_gate(max_action_rate_hz=60.0)
    for now_s in np.arange(0.0, 0.4, 0.001):
        gate.action(FORWARD, now_s)
    assert gate.watchdog.state is GateState.HOLDING
    assert "60 Hz" in gate.watchdog.reason
    assert not any(moves(command) for _, command in run(gate, 0.5, 0.6))
    for now_s in np.arange(1.0, 2.0, 1 / 30):
        sense(gate, now_s)
        gate.action(FORWARD, now_s)
        assert gate.watchdog.state is GateState.ARMED


def test_the_operator_drives_slowly_and_the_policy_does_not():
    gate = make_gate(limits=SLOW, operator_scale=0.5)
    assert gate.watchdog.take_over() == ""
    gate.action(FORWARD, 0.01)
    assert not moves(gate.advance(0.01, PERIOD_S))
    for now_s in np.arange(0.02, 0.5, PERIOD_S):
        gate.joints(JOINTS, now_s)
        gate.operate(np.array((0.0, 1.0, 0.0)), np.zeros(3), now_s)
        command = gate.advance(now_s, PERIOD_S)
    np.testing.assert_allclose(command.twist.linear, (0.0, 0.05, 0.0), atol=1e-9)
    gate.operate_gripper(0.03, 0.5)
    assert gate.advance(0.5, PERIOD_S).gripper_m == 0.03
    gate.operate(np.full(3, np.nan), np.zeros(3), 0.51)
    assert not any(moves(command) for now_s, command in run(gate, 0.51, 0.65) if now_s > 0.56)
    gate.watchdog.hand_back()
    gate.operate(np.array((0.0, 1.0, 0.0)), np.zeros(3), 0.66)
    assert not moves(gate.advance(0.66, PERIOD_S))


def test_the_operators_gripper_is_heard_of_though_commands_have_ceased():
    gate = make_gate()
    gate.watchdog.take_over()
    assert run(gate, 0.01, 1.0)[-1][1] is None
    gate.joints(JOINTS, 1.0)
    gate.operate_gripper(0.03, 1.0)
    assert {command.gripper_m for _, command in run(gate, 1.0, 1.1)} == {0.03}
    for opening_m in (0.2, -0.01, float("nan")):
        gate.operate_gripper(opening_m, 2.0)
        assert "must be in [0, 0.08]" in gate.watchdog.reason
    gate.watchdog.hand_back()
    gate.operate_gripper(0.05, 3.0)
    gate.joints(JOINTS, 3.0)
    gate.watchdog.take_over()
    gate.operate(np.zeros(3), np.zeros(3), 3.0)
    assert gate.advance(3.0, PERIOD_S).gripper_m == 0.03


def test_what_an_operator_without_the_arm_sends_holds_nobody():
    gate = make_gate()
    gate.action(FORWARD, 0.01)
    gate.refuse_operator("a frame nobody knows")
    assert moves(gate.advance(0.01, PERIOD_S))
    gate.watchdog.take_over()
    gate.refuse_operator("a frame nobody knows")
    assert gate.watchdog.reason == "a frame nobody knows"


def test_simulation_limits_let_every_action_of_calvin_pass():
    """simulation.yaml promises that full-scale actions are not changed, whatever came before."""
    import yaml

    from deer_ros.control.action_codec import twist_from_action
    from deer_ros.graph import CONFIG_FOLDER

    values = yaml.safe_load((CONFIG_FOLDER / "simulation.yaml").read_text())["/**/safety"]["ros__parameters"]
    names = (
        *("linear_speed_m_s", "angular_speed_rad_s", "linear_acceleration_m_s2", "angular_acceleration_rad_s2"),
        *("linear_jerk_m_s3", "angular_jerk_rad_s3"),
    )
    limits = SafetyLimits((-1, -1, 0), (1, 1, 1.5), *(values[name] for name in names), 0.0, 0.08, 30.0)
    gate = make_gate(limits=limits, per_action=True)
    _, euler_rad = ArmGeometry().tcp_pose(JOINTS)
    generator = np.random.default_rng(0)
    for _ in range(200):
        action = np.append(generator.choice((-1.0, 1.0), 6), 1.0)
        gate.action(action, 0.01)
        twist = gate.advance(0.01, 1 / 30).twist
        wanted = twist_from_action(action[:6], euler_rad, 30.0)
        np.testing.assert_allclose(twist.linear, wanted.linear, atol=1e-12)
        np.testing.assert_allclose(twist.angular, wanted.angular, atol=1e-12)
        assert gate.watchdog.reason == ""


@pytest.mark.parametrize(
    ("name", "value"), [("control_rate_hz", 0.0), ("max_action_rate_hz", 10.0), ("operator_scale", float("nan"))]
)
def test_settings_that_cannot_work_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        GateSettings(**{"control_rate_hz": 30.0, "hold_duration_s": 0.3, name: value})
