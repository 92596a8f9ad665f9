"""The safety gate: policy actions go in, limited commands come out, and standstill whenever something is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import GRIPPER_OPEN, Action
from deer_ros.control.action_codec import Twist, twist_from_action
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.control.safety import SafetyLimits
from deer_ros.control.watchdog import GateState, Watchdog


@dataclass(frozen=True)
class GateSettings:
    """Rate of the commands, and how long standstill is repeated before the gate falls silent (receivers may miss one;
    but zeros sent for ever would fight with whoever else wants to move the arm)."""

    control_rate_hz: float
    hold_duration_s: float


@dataclass(frozen=True)
class Command:
    """What goes to the arm: a twist and, unless None, a gripper opening in m."""

    twist: Twist
    gripper_m: float | None


class SafetyGate:
    """Decides about each command. Times are seconds of one monotonic clock, passed in by the caller."""

    def __init__(self, limits: SafetyLimits, watchdog: Watchdog, geometry: ArmGeometry, settings: GateSettings) -> None:
        self._limits = limits
        self._geometry = geometry
        self._settings = settings
        self.watchdog = watchdog
        self._position_m = np.zeros(3)
        self._euler_rad = np.zeros(3)
        self._previous = Twist.zero()
        self._gripper_m: float | None = None
        self._held_since_s: float | None = None

    def joints(self, joints_rad: np.ndarray, now_s: float) -> None:
        """Takes measured joint angles (7,). Raises ConfigError, and keeps the old ones, if they are not finite."""
        self._position_m, self._euler_rad = self._geometry.tcp_pose(joints_rad)
        self.watchdog.joints(now_s)

    def action(self, values: np.ndarray, now_s: float) -> Command | None:
        """The command for a policy action (7,), or None while stopped. A refused action becomes standstill."""
        if self.watchdog.state is GateState.STOPPED:
            return None
        try:
            twist, gripper_m, limited = self._limited(values, now_s)
        except ConfigError as error:
            self.watchdog.refuse(str(error))
            return self._hold(now_s)
        self.watchdog.command(now_s, limited)
        self._held_since_s = None
        self._previous = twist
        self._gripper_m = gripper_m
        return Command(twist, gripper_m)

    def tick(self, now_s: float) -> Command | None:
        """To be called at a steady rate: standstill while holding or stopped, for `hold_duration_s`; else None."""
        self.watchdog.check(now_s)
        if self.watchdog.state is GateState.ARMED:
            return None
        if self._held_since_s is not None and now_s - self._held_since_s > self._settings.hold_duration_s:
            return None
        return self._hold(now_s)

    def stop(self, reason: str, now_s: float) -> Command:
        """Stops at once and latches."""
        self.watchdog.stop(reason)
        self._held_since_s = None
        return self._hold(now_s)

    def _hold(self, now_s: float) -> Command:
        self._previous = Twist.zero()
        if self._held_since_s is None:
            self._held_since_s = now_s
        return Command(Twist.zero(), self._gripper_m)

    def _limited(self, values: np.ndarray, now_s: float) -> tuple[Twist, float, str]:
        action = Action(values).values
        if not self.watchdog.joints_fresh(now_s):
            raise ConfigError("there is no fresh joint state; check the topic joint_states")
        rate_hz = self._settings.control_rate_hz
        wanted = twist_from_action(action[:6], self._euler_rad, rate_hz)
        twist, reasons = self._limits.limit_twist(wanted, self._previous, self._position_m, 1.0 / rate_hz)
        opening_m = self._limits.gripper_open_m if action[6] == GRIPPER_OPEN else self._limits.gripper_closed_m
        return twist, opening_m, "; ".join(reasons)
