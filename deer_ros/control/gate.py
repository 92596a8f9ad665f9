"""The safety gate: policy actions go in, limited commands come out, and standstill whenever something is wrong."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import GRIPPER_OPEN, Action
from deer_ros.control.action_codec import Twist, twist_from_action
from deer_ros.control.command_shaper import CommandShaper
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.control.safety import SafetyLimits
from deer_ros.control.watchdog import GateState, Watchdog

HELD_PERIODS = 2.0
"""An action's velocity is kept for this many control periods, so that one late action does not jerk; then it fades."""
RATE_WINDOW_S = 0.25
"""Over which the rate of actions is judged."""


@dataclass(frozen=True)
class GateSettings:
    """How the gate runs.

    Attributes:
        control_rate_hz: rate of the policy's actions.
        hold_duration_s: how long standstill is repeated before the gate falls silent (receivers may miss one; but zeros
            sent for ever would fight with whoever else wants to move the arm).
        brake_time_s: from motion to standstill when the gate begins to hold; a stop is at once.
        max_action_rate_hz: actions that come faster are refused: somebody else is sending as well.
        operator_scale: share of the speed limits that an operator may use.
        per_action: whether time stands still between actions (a simulator in lockstep).
    """

    control_rate_hz: float
    hold_duration_s: float
    brake_time_s: float = 0.0
    max_action_rate_hz: float = 1000.0
    operator_scale: float = 1.0
    per_action: bool = False

    def __post_init__(self) -> None:
        for name in ("control_rate_hz", "max_action_rate_hz", "operator_scale"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ConfigError(f"gate setting {name} is {value}; it must be a positive finite number")
        if self.max_action_rate_hz < self.control_rate_hz:
            raise ConfigError(
                f"max_action_rate_hz is {self.max_action_rate_hz:g}; it must be at least control_rate_hz, "
                f"{self.control_rate_hz:g}, or the policy's own actions are refused"
            )


@dataclass(frozen=True)
class Command:
    """What goes to the arm: a twist and, unless None, a gripper opening in m."""

    twist: Twist
    gripper_m: float | None


class SafetyGate:
    """Decides about each command. Times are seconds of one monotonic clock, passed in by the caller."""

    def __init__(self, limits: SafetyLimits, watchdog: Watchdog, geometry: ArmGeometry, settings: GateSettings) -> None:
        self._geometry = geometry
        self._settings = settings
        self._shaper = CommandShaper(limits, settings.brake_time_s)
        self.watchdog = watchdog
        self._position_m = np.zeros(3)
        self._euler_rad = np.zeros(3)
        self._measured = Twist.zero()
        self._joints_at_s = -np.inf
        self._target = Twist.zero()
        self._target_at_s = -np.inf
        self._gripper_m: float | None = None
        self._gripper_changed_s = -np.inf
        self._held_since_s: float | None = None
        self._arrivals_s: deque[float] = deque(maxlen=int(settings.max_action_rate_hz * RATE_WINDOW_S) + 2)

    @property
    def limits(self) -> SafetyLimits:
        """The limits in force."""
        return self._shaper.limits

    @limits.setter
    def limits(self, limits: SafetyLimits) -> None:
        """Take effect with the next command."""
        self._shaper.limits = limits

    def joints(self, joints_rad: np.ndarray, now_s: float, speeds_rad_s: np.ndarray | None = None) -> None:
        """Takes measured joint angles (7,) and, where the driver tells them, speeds (7,).

        Raises ConfigError, and keeps the old ones, if they are not finite.
        """
        position_m, euler_rad = self._geometry.tcp_pose(joints_rad)
        measured = Twist.zero() if speeds_rad_s is None else self._geometry.tcp_twist(joints_rad, speeds_rad_s)
        self._position_m, self._euler_rad, self._measured = position_m, euler_rad, measured
        self._joints_at_s = now_s
        self.watchdog.joints(now_s)

    def action(self, values: np.ndarray, now_s: float) -> None:
        """Judges a policy action (7,): it becomes what is headed for, or the gate holds. While stopped or taken over it
        is nothing."""
        if self.watchdog.state not in (GateState.HOLDING, GateState.ARMED):
            return
        self._arrivals_s.append(now_s)
        try:
            target, gripper_m = self._judged(values, now_s)
        except ConfigError as error:
            self.watchdog.reject(str(error), now_s)
            return
        if stale := self.watchdog.stale(now_s):
            self.watchdog.refuse(stale)
            return
        passed = self.watchdog.passes
        self.watchdog.command(now_s, self._limiting(target))
        if self.watchdog.passes:
            self._accept(target, gripper_m, now_s, passed)

    def operate(self, linear: np.ndarray, angular: np.ndarray, now_s: float) -> None:
        """Judges an operator's command, m/s (3,) and rad/s (3,) in base axes, if the operator has the arm."""
        if self.watchdog.state is not GateState.TAKEN_OVER:
            return
        try:
            target = self._slowed(Twist(linear, angular))
            if stale := self.watchdog.stale(now_s):
                raise ConfigError(stale)
        except ConfigError as error:
            self.watchdog.refuse(str(error))
            return
        passed = self.watchdog.passes
        self.watchdog.operate(now_s, self._limiting(target))
        self._accept(target, self._gripper_m, now_s, passed)

    def operate_gripper(self, opening_m: float, now_s: float) -> None:
        """Judges an operator's opening of the gripper, in m, if the operator has the arm."""
        if self.watchdog.state is not GateState.TAKEN_OVER:
            return
        closed_m, open_m = self.limits.gripper_closed_m, self.limits.gripper_open_m
        if not closed_m <= opening_m <= open_m:
            self.watchdog.refuse(
                f"the gripper's opening is {opening_m:g} m, which must be in [{closed_m:g}, {open_m:g}]"
            )
            return
        self._change_gripper(opening_m, now_s)
        # Commands that went silent begin again, or nobody would hear of it.
        self._held_since_s = None

    def refuse_operator(self, reason: str) -> None:
        """What an operator sent can't be used; nothing unless the operator has the arm."""
        if self.watchdog.state is GateState.TAKEN_OVER:
            self.watchdog.refuse(reason)

    def advance(self, now_s: float, period_s: float) -> Command | None:
        """The command for the next period; None where nothing is to be said any more."""
        self.watchdog.check(now_s)
        if not self.watchdog.passes:
            return self._hold(now_s, period_s)
        self._held_since_s = None
        kept_s = HELD_PERIODS / self._settings.control_rate_hz
        fresh = self._settings.per_action or now_s - self._target_at_s <= kept_s
        position_m = self._position_now(now_s)
        if fresh and self._target.still:
            # Whoever asks for standstill wants it now: the end of a goal, a cancellation.
            return Command(self._shaper.brake(position_m, period_s), self._gripper_m)
        target = self._target if fresh else Twist.zero()
        twist, _ = self._shaper.towards(target, position_m, period_s)
        return Command(twist, self._gripper_m)

    def stop(self, reason: str, now_s: float) -> Command:
        """Stops at once and latches."""
        self.watchdog.stop(reason)
        self._held_since_s = now_s
        return Command(self.halted(), self._gripper_m)

    def halted(self) -> Twist:
        """Standstill at once, from which the next motion begins."""
        self._shaper.halt()
        return self._shaper.twist

    def _hold(self, now_s: float, period_s: float) -> Command | None:
        if self._held_since_s is None:
            self._held_since_s = now_s
        if self.watchdog.state is GateState.STOPPED:
            self._shaper.halt()
        if self._shaper.still and now_s - self._held_since_s > self._settings.hold_duration_s:
            return None
        return Command(self._shaper.brake(self._position_now(now_s), period_s), self._gripper_m)

    def _limiting(self, target: Twist) -> str:
        """What of the target is not allowed, in words."""
        return "; ".join(self.limits.limit_target(target, self._position_m)[1])

    def _accept(self, target: Twist, gripper_m: float | None, now_s: float, passed: bool) -> None:
        """From standstill, motion begins with what the arm really does; `passed`: whether commands passed before."""
        if self._shaper.still and not passed:
            self._shaper.seed(self._measured)
        self._target, self._target_at_s = target, now_s
        if gripper_m is not None:
            self._change_gripper(gripper_m, now_s)

    def _change_gripper(self, opening_m: float, now_s: float) -> None:
        """Too soon after the last change, the gripper keeps what it was told."""
        if opening_m == self._gripper_m or now_s - self._gripper_changed_s < 1.0 / self.limits.gripper_rate_hz:
            return
        self._gripper_m, self._gripper_changed_s = opening_m, now_s

    def _judged(self, values: np.ndarray, now_s: float) -> tuple[Twist, float]:
        action = Action(values).values
        recent = sum(now_s - arrived_s <= RATE_WINDOW_S for arrived_s in self._arrivals_s)
        if recent > self._settings.max_action_rate_hz * RATE_WINDOW_S + 1:
            raise ConfigError(
                f"actions come at more than {self._settings.max_action_rate_hz:g} Hz; one policy node alone may act"
            )
        target = twist_from_action(action[:6], self._euler_rad, self._settings.control_rate_hz)
        opening_m = self.limits.gripper_open_m if action[6] == GRIPPER_OPEN else self.limits.gripper_closed_m
        return target, opening_m

    def _slowed(self, twist: Twist) -> Twist:
        scale, limits = self._settings.operator_scale, self.limits
        linear = twist.linear * min(
            1.0, scale * limits.linear_speed_m_s / max(float(np.linalg.norm(twist.linear)), 1e-12)
        )
        angular = twist.angular * min(
            1.0, scale * limits.angular_speed_rad_s / max(float(np.linalg.norm(twist.angular)), 1e-12)
        )
        return Twist(linear, angular)

    def _position_now(self, now_s: float) -> np.ndarray:
        """Where the tool centre point is by now: as measured, and moved on by what was commanded since."""
        if self._settings.per_action or not np.isfinite(self._joints_at_s):
            return self._position_m
        age_s = min(now_s - self._joints_at_s, self.watchdog.settings.joint_timeout_s)
        return self._position_m + self._shaper.twist.linear * age_s
