"""The safety node: policy actions in, limited commands out; managed, and a process of its own in the command path."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from deer_msgs.msg import PolicyAction, SafetyState
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64
from std_srvs.srv import SetBool, Trigger

from deer_policies.errors import DeerError
from deer_ros import graph
from deer_ros.control.gate import Command, SafetyGate
from deer_ros.control.joint_motion import JointMotion
from deer_ros.control.rate_meter import RateMeter
from deer_ros.control.watchdog import GateState, Watchdog
from deer_ros.conversions import joint_positions, joint_speeds, stamp_to_ns
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes import safety_parameters
from deer_ros.nodes.arm_output import ArmCommand, ArmOutput, TrajectoryOutput, TwistOutput
from deer_ros.nodes.gripper_output import GripperOutput, make_gripper_output
from deer_ros.nodes.safety_parameters import OBSERVATION, Limits
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED

NO_STAMP = Time()
"""Stamp of a command that answers no frame."""
HEARTBEAT_S = 0.2
"""The state is published this often even if nothing changes: a safety node that falls silent has failed."""
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 1e-3, 0.05
"""Of one command."""


class SafetyNode(ManagedNode):
    """Wires the safety gate to topics; the decisions are in `deer_ros.control`.

    It can be stopped in every state of its lifecycle; everything else needs it to be active.
    """

    def __init__(self) -> None:
        self._arm_output: ArmOutput | None = None
        self._gripper_output: GripperOutput | None = None
        super().__init__("safety")
        self._settings = safety_parameters.declare(self)
        self._limits = safety_parameters.declare_limits(self, self._take_limits)
        self._watchdog = Watchdog(self._limits.watchdog, self._settings.brings_armed)
        self._gate = SafetyGate(self._limits.motion, self._watchdog, self._settings.arm.geometry, self._settings.gate)
        self._joints_rad: np.ndarray | None = None
        self._joint_trouble = ""
        self._told: tuple[GateState, str] | None = None
        self._told_s = self._sent_s = -np.inf
        self._refused = self._passed = 0
        self._answered = (0, b"")
        self._meters = {
            name: RateMeter()
            for name in (graph.POLICY_ACTION, graph.JOINT_STATES, graph.STATIC_IMAGE, graph.GRIPPER_IMAGE)
        }
        self._state_publisher = self.create_publisher(SafetyState, graph.SAFETY_STATE, LATCHED)
        self.create_service(Trigger, graph.SAFETY_STOP, self._on_stop)
        self.create_service(Trigger, graph.SAFETY_ARM, self._on_arm)
        self.create_service(SetBool, graph.SAFETY_TAKEOVER, self._on_takeover)
        self.create_subscription(Bool, graph.E_STOP, self._on_e_stop, COMMANDS)
        self._timer = self.create_timer(
            1.0 / self._settings.command_rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        DiagnosticsPublisher(self, self._health)
        self._tell()

    def set_up(self) -> None:
        """Makes the interfaces of the command path."""
        arm, settings = self._settings.arm, self._settings
        self._gripper_output = make_gripper_output(self, settings)
        self._releases.append(self._gripper_output.close)
        if settings.arm_output == graph.TWIST:
            self._arm_output = TwistOutput(self, arm.base_frame)
        else:
            motion = JointMotion(arm.geometry, settings.joints)
            self._arm_output = TrajectoryOutput(self, motion, arm.joint_names, settings.gate.brake_time_s)
        self._releases.append(self._arm_output.close)
        self._subscribe(JointState, graph.JOINT_STATES, self._on_joints, qos_profile_sensor_data)
        self._subscribe(PolicyAction, graph.POLICY_ACTION, self._on_action, COMMANDS)
        self._subscribe(TwistStamped, graph.OPERATOR_TWIST, self._on_operator_twist, COMMANDS)
        self._subscribe(Float64, graph.OPERATOR_GRIPPER, self._on_operator_gripper, COMMANDS)
        for topic in (graph.STATIC_IMAGE, graph.GRIPPER_IMAGE):
            # Only whether it comes counts: raw messages are not unpacked.
            self._subscribe(Image, topic, partial(self._on_image, topic), qos_profile_sensor_data, raw=True)

    def start(self) -> None:
        """Commands may pass from now on, if armed."""
        self._watchdog.activate()
        self._tell()

    def halt(self, reason: str) -> None:
        """Standstill, and nothing after it."""
        self._watchdog.deactivate()
        self._send(Command(self._gate.halted(), None), NO_STAMP, time.monotonic())
        self._tell()

    def release(self) -> None:
        """Gives back the interfaces of the command path."""
        super().release()
        self._arm_output = self._gripper_output = None

    def _subscribe(
        self, kind: Any, topic: str, callback: Callable[[Any], None], quality: Any, raw: bool = False
    ) -> None:
        subscription = self.create_subscription(kind, topic, callback, quality, raw=raw)
        self._releases.append(partial(self.destroy_subscription, subscription))

    def _take_limits(self, limits: Limits) -> None:
        self._gate.limits = limits.motion
        self._watchdog.settings = limits.watchdog

    def _on_joints(self, message: JointState) -> None:
        now_s, names = time.monotonic(), self._settings.arm.joint_names
        try:
            positions = joint_positions(message, names)
            self._gate.joints(positions, now_s, joint_speeds(message, names))
        except DeerError as error:
            if str(error) != self._joint_trouble:
                self.get_logger().warning(str(error))
            self._joint_trouble = str(error)
        else:
            self._joints_rad, self._joint_trouble = positions, ""
            self._meters[graph.JOINT_STATES].note(now_s)

    def _on_image(self, topic: str, _: bytes) -> None:
        now_s = time.monotonic()
        self._watchdog.image(topic, now_s)
        self._meters[topic].note(now_s)

    def _on_action(self, message: PolicyAction) -> None:
        """A good action goes out at once, and the timer goes on from there."""
        now_s = time.monotonic()
        self._meters[graph.POLICY_ACTION].note(now_s)
        if not self.active or self._repeated(message):
            return
        self._gate.action(np.asarray(message.action), now_s)
        armed = self._watchdog.state is GateState.ARMED
        self._passed += armed
        self._refused += not armed
        takes_actions = self._watchdog.state in (GateState.ARMED, GateState.HOLDING)
        if armed or (takes_actions and self._settings.gate.per_action):
            self._advance(now_s, message.header.stamp)
            self._timer.reset()
        self._tell()

    def _repeated(self, message: PolicyAction) -> bool:
        """Whether it is the answer to the frame that was answered last: a camera that repeats itself is no news, but in
        lockstep the simulator may have missed the command."""
        answer = (stamp_to_ns(message.header.stamp), bytes(message.goal_id))
        repeated = answer == self._answered and answer[0] > 0 and not self._settings.gate.per_action
        self._answered = answer
        return repeated

    def _on_operator_twist(self, message: TwistStamped) -> None:
        linear, angular, frame = message.twist.linear, message.twist.angular, message.header.frame_id
        values = np.array((linear.x, linear.y, linear.z)), np.array((angular.x, angular.y, angular.z))
        if frame not in ("", self._settings.arm.base_frame):
            self._gate.refuse_operator(f"their twist is in frame {frame!r}, not {self._settings.arm.base_frame!r}")
            return
        self._gate.operate(*values, time.monotonic())

    def _on_operator_gripper(self, message: Float64) -> None:
        self._gate.operate_gripper(message.data, time.monotonic())

    def _tick(self) -> None:
        """In lockstep, where time stands still between actions, an armed gate waits for the next one."""
        now_s = time.monotonic()
        if self.active:
            self._watchdog.check(now_s)
            if not (self._settings.gate.per_action and self._watchdog.passes):
                self._advance(now_s, NO_STAMP)
        self._tell()

    def _advance(self, now_s: float, stamp: Time) -> None:
        command = self._gate.advance(now_s, self._period_s(now_s))
        if command is not None:
            self._send(command, stamp, now_s)

    def _period_s(self, now_s: float) -> float:
        """How long the next command counts: in lockstep the control period, else as long as the one before lasted."""
        if self._settings.gate.per_action:
            return 1.0 / self._settings.gate.control_rate_hz
        return min(LONGEST_PERIOD_S, max(SHORTEST_PERIOD_S, now_s - self._sent_s))

    def _on_e_stop(self, message: Bool) -> None:
        if message.data:
            self._stop("the e-stop is pressed")
        self._watchdog.press(message.data)
        self._tell()

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stop("stopped by the service safety/stop")
        response.success, response.message = True, "stopped; safety/arm lets commands pass again"
        return response

    def _stop(self, reason: str) -> None:
        now_s = time.monotonic()
        command = self._gate.stop(reason, now_s)
        if self.active:
            self._send(command, NO_STAMP, now_s)
        self._tell()

    def _on_arm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        refusal = self._watchdog.arm()
        self._tell()
        response.success, response.message = not refusal, refusal or self._watchdog.state.name
        return response

    def _on_takeover(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            refusal = self._watchdog.take_over()
        else:
            refusal = ""
            self._watchdog.hand_back()
        self._tell()
        response.success, response.message = not refusal, refusal or self._watchdog.state.name
        return response

    def _send(self, command: Command, stamp: Time, now_s: float) -> None:
        """The gripper's command goes first: a simulator in lockstep acts when the twist comes."""
        if self._arm_output is None or self._gripper_output is None:
            return
        if command.gripper_m is not None:
            self._gripper_output.send(command.gripper_m)
        if self._settings.stamping != OBSERVATION:
            stamp = self.get_clock().now().to_msg()
        joints_rad = np.zeros(len(self._settings.arm.joint_names)) if self._joints_rad is None else self._joints_rad
        try:
            self._arm_output.send(ArmCommand(command.twist, joints_rad, 1.0 / self._settings.command_rate_hz, stamp))
        except DeerError as error:
            self._watchdog.refuse(str(error))
        self._sent_s = now_s

    def _tell(self) -> None:
        """Publishes the state if it or its reason has changed, and else now and then; logs a change of state."""
        now_s, now = time.monotonic(), (self._watchdog.state, self._watchdog.reason)
        if now == self._told and now_s - self._told_s < HEARTBEAT_S:
            return
        if self._told is None or self._told[0] is not now[0]:
            self.get_logger().info(f"{now[0].name}{': ' if now[1] else ''}{now[1]}")
        self._told, self._told_s = now, now_s
        message = SafetyState(state=int(now[0]), reason=now[1])
        message.header.stamp = self.get_clock().now().to_msg()
        self._state_publisher.publish(message)

    def _health(self) -> Health:
        watchdog, now_s = self._watchdog, time.monotonic()
        values: dict[str, object] = {
            "state": watchdog.state.name,
            "commands passed": self._passed,
            "commands refused": self._refused,
        }
        for name, meter in self._meters.items():
            age_s = meter.age_s(now_s)
            values[f"{name} rate Hz"] = round(meter.rate_hz(now_s), 2)
            values[f"{name} age s"] = "never" if age_s is None else round(age_s, 3)
        gripper = self._gripper_output.trouble if self._gripper_output is not None else ""
        waiting = "" if watchdog.state is GateState.ARMED else watchdog.reason
        trouble = self._joint_trouble or self._intruders() or gripper or waiting
        return Health(trouble, watchdog.state is GateState.STOPPED, values)

    def _intruders(self) -> str:
        """Who else commands the arm past this node, or sends actions beside the policy, in words."""
        if self._arm_output is None:
            return ""
        output = graph.ARM_TWIST if self._settings.arm_output == graph.TWIST else graph.ARM_TRAJECTORY
        for topic, of in (
            (output, "commands reach the arm past the safety node"),
            (graph.POLICY_ACTION, "who else acts?"),
        ):
            count = self.count_publishers(topic)
            if count > 1:
                return f"{count} nodes publish on {topic}: {of}"
        return ""


def main() -> int:
    """Runs the node as a process."""
    return run(SafetyNode)


if __name__ == "__main__":
    raise SystemExit(main())
