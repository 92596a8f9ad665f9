"""The safety node: policy actions in, limited commands out; a process of its own in the command path."""

from __future__ import annotations

import time

import numpy as np
from builtin_interfaces.msg import Time
from deer_msgs.msg import PolicyAction, SafetyState
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from deer_policies.errors import DeerError
from deer_ros import graph, parameters
from deer_ros.control.gate import Command, GateSettings, SafetyGate
from deer_ros.control.safety import SafetyLimits
from deer_ros.control.watchdog import GateState, Watchdog, WatchdogSettings
from deer_ros.conversions import joint_positions
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED

OBSERVATION, NOW = "observation", "now"
NO_STAMP = Time()
"""Stamp of a command that answers no frame."""


class SafetyNode(Node):
    """Wires the safety gate to topics; the decisions are in `deer_ros.control.gate`."""

    def __init__(self) -> None:
        super().__init__("safety")
        self._arm_parameters = parameters.arm(self)
        self._stamping = parameters.text(
            self,
            "command_stamp",
            NOW,
            "stamp of commands: now (arm controllers reject old ones) or the observation's (simulator in lockstep)",
            (NOW, OBSERVATION),
        )
        settings = GateSettings(
            parameters.number(self, "control_rate_hz", 30.0, 1.0, 1000.0, "rate of the policy's actions"),
            parameters.number(self, "hold_duration_s", 0.5, 0.0, 60.0, "how long standstill is repeated"),
        )
        watchdog = Watchdog(
            WatchdogSettings(
                parameters.number(self, "command_timeout_s", 0.1, 0.01, 10.0, "older commands are stale: hold"),
                parameters.number(self, "joint_timeout_s", 0.1, 0.01, 10.0, "older joint states are stale: hold"),
            ),
            parameters.flag(self, "arm_on_start", False, "whether commands pass without a call of safety/arm first"),
        )
        self._gate = SafetyGate(declare_limits(self), watchdog, self._arm_parameters.geometry, settings)
        self._make_interfaces()
        self._told: tuple[GateState, str] | None = None
        self._refused = self._passed = 0
        self._joint_trouble = ""
        self.create_timer(1.0 / settings.control_rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        DiagnosticsPublisher(self, self._health)
        self._tell()

    def _make_interfaces(self) -> None:
        self._twist_publisher = self.create_publisher(TwistStamped, graph.ARM_TWIST, COMMANDS)
        self._gripper_publisher = self.create_publisher(Float64, graph.GRIPPER_COMMAND, COMMANDS)
        self._state_publisher = self.create_publisher(SafetyState, graph.SAFETY_STATE, LATCHED)
        self.create_subscription(JointState, graph.JOINT_STATES, self._on_joints, qos_profile_sensor_data)
        self.create_subscription(PolicyAction, graph.POLICY_ACTION, self._on_action, COMMANDS)
        self.create_service(Trigger, graph.SAFETY_STOP, self._on_stop)
        self.create_service(Trigger, graph.SAFETY_ARM, self._on_arm)

    def _on_joints(self, message: JointState) -> None:
        try:
            self._gate.joints(joint_positions(message, self._arm_parameters.joint_names), time.monotonic())
        except DeerError as error:
            if str(error) != self._joint_trouble:
                self.get_logger().warning(str(error))
            self._joint_trouble = str(error)
        else:
            self._joint_trouble = ""

    def _on_action(self, message: PolicyAction) -> None:
        command = self._gate.action(np.asarray(message.action), time.monotonic())
        armed = self._gate.watchdog.state is GateState.ARMED
        self._passed += armed
        self._refused += not armed
        if command is not None:
            self._send(command, message.header.stamp)
        self._tell()

    def _tick(self) -> None:
        command = self._gate.tick(time.monotonic())
        if command is not None:
            self._send(command, NO_STAMP)
        self._tell()

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._send(self._gate.stop("stopped by the service safety/stop", time.monotonic()), NO_STAMP)
        self._tell()
        response.success, response.message = True, "stopped; safety/arm lets commands pass again"
        return response

    def _on_arm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._gate.watchdog.arm()
        self._tell()
        response.success, response.message = True, self._gate.watchdog.state.name
        return response

    def _send(self, command: Command, stamp: Time) -> None:
        """The gripper's command goes first: a simulator in lockstep acts when the twist comes."""
        if command.gripper_m is not None:
            self._gripper_publisher.publish(Float64(data=command.gripper_m))
        message = TwistStamped()
        message.header.stamp = stamp if self._stamping == OBSERVATION else self.get_clock().now().to_msg()
        message.header.frame_id = self._arm_parameters.base_frame
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z = command.twist.linear.tolist()
        angular.x, angular.y, angular.z = command.twist.angular.tolist()
        self._twist_publisher.publish(message)

    def _tell(self) -> None:
        """Publishes the state if it or its reason has changed, and logs a change of state."""
        watchdog = self._gate.watchdog
        now = (watchdog.state, watchdog.reason)
        if now == self._told:
            return
        if self._told is None or self._told[0] is not now[0]:
            self.get_logger().info(f"{now[0].name}{': ' if now[1] else ''}{now[1]}")
        self._told = now
        message = SafetyState(state=int(now[0]), reason=now[1])
        message.header.stamp = self.get_clock().now().to_msg()
        self._state_publisher.publish(message)

    def _health(self) -> Health:
        watchdog = self._gate.watchdog
        values = {"state": watchdog.state.name, "commands passed": self._passed, "commands refused": self._refused}
        trouble = self._joint_trouble or ("" if watchdog.state is GateState.ARMED else watchdog.reason)
        return Health(trouble, watchdog.state is GateState.STOPPED, values)


def declare_limits(node: Node) -> SafetyLimits:
    """The limits out of the node's parameters; the defaults are slow, for an arm with people near it."""
    number = parameters.number
    low = parameters.numbers(node, "workspace_low_m", (-0.5, -0.5, 0.35), "lowest x y z of the tool centre point")
    high = parameters.numbers(node, "workspace_high_m", (0.5, 0.3, 0.9), "highest x y z of the tool centre point")
    return SafetyLimits(
        workspace_low_m=(low[0], low[1], low[2]),
        workspace_high_m=(high[0], high[1], high[2]),
        linear_speed_m_s=number(node, "linear_speed_m_s", 0.25, 0.001, 2.0, "greatest speed"),
        angular_speed_rad_s=number(node, "angular_speed_rad_s", 0.8, 0.001, 5.0, "greatest rate of turn"),
        linear_acceleration_m_s2=number(node, "linear_acceleration_m_s2", 2.0, 0.001, 100.0, "greatest acceleration"),
        angular_acceleration_rad_s2=number(
            node, "angular_acceleration_rad_s2", 6.0, 0.001, 200.0, "greatest angular acceleration"
        ),
        gripper_closed_m=number(node, "gripper_closed_m", 0.0, 0.0, 0.2, "opening that 'close' asks for"),
        gripper_open_m=number(node, "gripper_open_m", 0.08, 0.0, 0.2, "opening that 'open' asks for"),
    )


def main() -> int:
    """Runs the node as a process."""
    return run(SafetyNode)


if __name__ == "__main__":
    raise SystemExit(main())
