"""The safety gate and its watchdog: what passes, what becomes standstill, and what stays stopped."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.gate import GateSettings, SafetyGate
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.control.safety import SafetyLimits
from deer_ros.control.watchdog import GateState, Watchdog, WatchdogSettings

JOINTS = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
FORWARD = np.array((0.5, 0, 0, 0, 0, 0, 1), np.float32)
LIMITS = SafetyLimits((-1, -1, 0), (1, 1, 1.5), 1.05, 3.0, 70.0, 180.0, 0.0, 0.08)


def make_gate(armed=True, joints_at_s=0.0):
    watchdog = Watchdog(WatchdogSettings(command_timeout_s=0.1, joint_timeout_s=0.5), armed)
    gate = SafetyGate(LIMITS, watchdog, ArmGeometry(), GateSettings(control_rate_hz=30.0, hold_duration_s=0.3))
    gate.joints(JOINTS, joints_at_s)
    return gate


def moves(command):
    return command is not None and bool(command.twist.linear.any() or command.twist.angular.any())


def test_a_good_action_passes_and_arms():
    gate = make_gate()
    assert gate.watchdog.state is GateState.HOLDING
    command = gate.action(FORWARD, 0.01)
    np.testing.assert_allclose(command.twist.linear, (0.3, 0.0, 0.0), atol=1e-7)
    assert command.gripper_m == 0.08
    assert gate.watchdog.state is GateState.ARMED
    assert gate.watchdog.reason == ""


def test_without_new_actions_it_holds_then_falls_silent():
    gate = make_gate()
    gate.action(FORWARD, 0.01)
    assert gate.tick(0.05) is None
    held = gate.tick(0.12)
    assert held is not None
    assert not moves(held)
    assert held.gripper_m == 0.08
    assert gate.watchdog.state is GateState.HOLDING
    assert "no command" in gate.watchdog.reason
    assert gate.tick(0.3) is not None
    assert gate.tick(0.5) is None
    assert moves(gate.action(FORWARD, 0.45))


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
    assert not moves(gate.action(bad, 0.02))
    assert gate.watchdog.state is GateState.HOLDING
    assert "action" in gate.watchdog.reason


def test_without_fresh_joints_nothing_moves():
    gate = make_gate(joints_at_s=0.0)
    assert not moves(gate.action(FORWARD, 0.6))
    assert "joint state" in gate.watchdog.reason
    gate.joints(JOINTS, 0.6)
    assert moves(gate.action(FORWARD, 0.61))


def test_bad_joints_do_not_count_as_fresh():
    gate = make_gate(joints_at_s=0.0)
    with pytest.raises(ConfigError):
        gate.joints(np.full(7, np.nan), 0.55)
    assert not moves(gate.action(FORWARD, 0.6))


def test_a_stop_is_latched_until_armed():
    gate = make_gate()
    gate.action(FORWARD, 0.01)
    assert not moves(gate.stop("somebody pressed it", 0.02))
    assert gate.action(FORWARD, 0.03) is None
    assert gate.watchdog.state is GateState.STOPPED
    assert not moves(gate.tick(0.2))
    assert gate.watchdog.reason == "somebody pressed it"
    gate.watchdog.arm()
    assert gate.watchdog.state is GateState.HOLDING
    assert moves(gate.action(FORWARD, 0.3))


def test_not_armed_on_start_lets_nothing_pass():
    gate = make_gate(armed=False)
    assert gate.action(FORWARD, 0.01) is None
    assert gate.watchdog.state is GateState.STOPPED


def test_limits_are_told_as_the_reason():
    watchdog = Watchdog(WatchdogSettings(0.1, 0.5), armed=True)
    slow = SafetyLimits((-1, -1, 0), (1, 1, 1.5), 0.1, 3.0, 70.0, 180.0, 0.0, 0.08)
    gate = SafetyGate(slow, watchdog, ArmGeometry(), GateSettings(30.0, 0.3))
    gate.joints(JOINTS, 0.0)
    command = gate.action(FORWARD, 0.01)
    assert np.linalg.norm(command.twist.linear) == pytest.approx(0.1)
    assert gate.watchdog.state is GateState.ARMED
    assert "linear speed limited" in gate.watchdog.reason


def test_simulation_limits_let_every_action_of_calvin_pass():
    """simulation.yaml promises that full-scale actions are not changed, whatever came before."""
    import yaml

    from deer_ros.graph import CONFIG_FOLDER

    values = yaml.safe_load((CONFIG_FOLDER / "simulation.yaml").read_text())["/**/safety"]["ros__parameters"]
    names = ("linear_speed_m_s", "angular_speed_rad_s", "linear_acceleration_m_s2", "angular_acceleration_rad_s2")
    limits = SafetyLimits((-1, -1, 0), (1, 1, 1.5), *(values[name] for name in names), 0.0, 0.08)
    gate = SafetyGate(limits, Watchdog(WatchdogSettings(0.1, 9.0), True), ArmGeometry(), GateSettings(30.0, 0.3))
    gate.joints(JOINTS, 0.0)
    generator = np.random.default_rng(0)
    for _ in range(200):
        action = np.append(generator.choice((-1.0, 1.0), 6), 1.0)
        gate.action(action, 0.01)
        assert gate.watchdog.reason == ""


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_timeouts_cannot_be_turned_off(value):
    with pytest.raises(ConfigError):
        WatchdogSettings(command_timeout_s=value, joint_timeout_s=0.1)
