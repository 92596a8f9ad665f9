"""Turns the policy's steps into a smooth command at the controller's rate: limited in speed, acceleration and jerk.

Between two calls the acceleration is constant, so a call's result is the velocity at the end of its period. The law is
the time-optimal one for such steps: the acceleration is at most what can be brought back to zero, at the jerk limit,
by the time the target velocity is reached; so the target is reached without overshoot as long as periods are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.action_codec import Twist, length
from deer_ros.control.safety import SafetyLimits

_SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)


class CommandShaper:
    """Keeps the velocity and the acceleration that were commanded last.

    Args:
        limits: of motion.
        brake_time_s: from any motion to standstill, when something is wrong; 0 is at once.
    """

    def __init__(self, limits: SafetyLimits, brake_time_s: float) -> None:
        if not 0.0 <= brake_time_s <= 0.1:
            raise ConfigError(f"brake_time_s is {brake_time_s}; it must be in 0..0.1 seconds")
        self.limits = limits
        self._brake_time_s = brake_time_s
        self._braking: tuple[_State, _State, float] | None = None
        self._linear, self._angular = _State.still(), _State.still()

    @property
    def twist(self) -> Twist:
        """What was commanded last."""
        return Twist(self._linear.velocity, self._angular.velocity)

    @property
    def still(self) -> bool:
        """Whether standstill was commanded last."""
        return self.twist.still

    def seed(self, measured: Twist) -> None:
        """Begins from the motion that the arm has, which may be more than the limits allow for a command."""
        self._braking = None
        self._linear = _State(_shortened(measured.linear, self.limits.linear_speed_m_s), np.zeros(3))
        self._angular = _State(_shortened(measured.angular, self.limits.angular_speed_rad_s), np.zeros(3))

    def halt(self) -> None:
        """Standstill at once."""
        self._braking = None
        self._linear, self._angular = _State.still(), _State.still()

    def towards(self, target: Twist, position_m: np.ndarray, period_s: float) -> tuple[Twist, tuple[str, ...]]:
        """The next command on the way to the target, and what of the target is not allowed, in words.

        Args:
            target: what is asked for.
            position_m: (3,) position of the tool centre point.
            period_s: how long the command acts.
        """
        self._braking = None
        allowed, reasons = self.limits.limit_target(target, position_m)
        limits = self.limits
        linear = _Bounds(limits.linear_speed_m_s, limits.linear_acceleration_m_s2, limits.linear_jerk_m_s3)
        angular = _Bounds(limits.angular_speed_rad_s, limits.angular_acceleration_rad_s2, limits.angular_jerk_rad_s3)
        self._linear = self._linear.towards(allowed.linear, linear, period_s)
        self._angular = self._angular.towards(allowed.angular, angular, period_s)
        return self._within(position_m, period_s), reasons

    def brake(self, position_m: np.ndarray, period_s: float) -> Twist:
        """The next command on the way to standstill, which is reached `brake_time_s` after the first call, smoothly."""
        if self._braking is None:
            self._braking = (self._linear, self._angular, 0.0)
        linear, angular, passed_s = self._braking
        passed_s += period_s
        self._braking = (linear, angular, passed_s)
        if passed_s >= self._brake_time_s:
            self._linear, self._angular = _State.still(), _State.still()
        else:
            self._linear = linear.braked(passed_s, self._brake_time_s)
            self._angular = angular.braked(passed_s, self._brake_time_s)
        return self._within(position_m, period_s)

    def _within(self, position_m: np.ndarray, period_s: float) -> Twist:
        """Speed and workspace are limits whatever the acceleration would be (rounding is no reason to cut anything)."""
        linear = _shortened(self._linear.velocity, self.limits.linear_speed_m_s * (1 + 1e-9))
        linear = self.limits.keep_inside(linear, position_m, period_s)
        angular = _shortened(self._angular.velocity, self.limits.angular_speed_rad_s * (1 + 1e-9))
        self._linear = self._linear.cut_to(linear)
        self._angular = self._angular.cut_to(angular)
        return self.twist


@dataclass(frozen=True)
class _Bounds:
    """Magnitudes of velocity and of its derivatives."""

    speed: float
    acceleration: float
    jerk: float


class _State:
    """A velocity and an acceleration, (3,) each."""

    def __init__(self, velocity: np.ndarray, acceleration: np.ndarray) -> None:
        self.velocity = velocity
        self.acceleration = acceleration

    @classmethod
    def still(cls) -> _State:
        return cls(np.zeros(3), np.zeros(3))

    def towards(self, target: np.ndarray, bounds: _Bounds, period_s: float) -> _State:
        """The next state: what leads to the target soonest, as far as the bounds can be kept from there on.

        The bounds are kept for ever if the acceleration can be brought to zero within them. That holds now, so it holds
        for the state in which it is on its way to zero; between that one and the wanted one, the nearest to the wanted
        one that is safe is taken.
        """
        step = bounds.jerk * period_s
        missing = target - self.velocity
        distance = length(missing)
        wanted = np.zeros(3)
        if distance > 0.0:
            wanted = missing / distance * min(bounds.acceleration, _arriving(distance, step, period_s))
        wanted = self.acceleration + _shortened(wanted - self.acceleration, step)
        size = length(self.acceleration)
        easing = self.acceleration * (max(size - step, 0.0) / size) if size > 0.0 else np.zeros(3)
        share = next((share for share in _SHARES if self._safe(easing, wanted, share, bounds, period_s)), 0.0)
        acceleration = easing + share * (wanted - easing)
        velocity = self.velocity + acceleration * period_s
        arrived = np.abs(velocity - target).max() <= 1e-13
        return _State(target.copy() if arrived else velocity, acceleration)

    def _safe(self, easing: np.ndarray, wanted: np.ndarray, share: float, bounds: _Bounds, period_s: float) -> bool:
        acceleration = easing + share * (wanted - easing)
        size = length(acceleration)
        step = bounds.jerk * period_s
        count = int(size / step)
        gained = period_s * (count * size - step * count * (count + 1) / 2)
        end = self.velocity + acceleration * (period_s + (gained / size if size > 0.0 else 0.0))
        return length(end) <= bounds.speed * (1 + 1e-10)

    def braked(self, passed_s: float, brake_time_s: float) -> _State:
        """The cubic from here to rest (Hermite's: both ends have the right velocity and acceleration)."""
        part = passed_s / brake_time_s
        velocity = (2 * part**3 - 3 * part**2 + 1) * self.velocity
        velocity = velocity + (part**3 - 2 * part**2 + part) * brake_time_s * self.acceleration
        acceleration = (6 * part**2 - 6 * part) / brake_time_s * self.velocity
        return _State(velocity, acceleration + (3 * part**2 - 4 * part + 1) * self.acceleration)

    def cut_to(self, velocity: np.ndarray) -> _State:
        """The same if the velocity is; else without acceleration on the axes that were cut."""
        same = velocity == self.velocity
        return self if same.all() else _State(velocity, np.where(same, self.acceleration, 0.0))


def _arriving(distance: float, step: float, period_s: float) -> float:
    """The greatest acceleration with which a velocity `distance` away is not overshot.

    From the next period on it falls by `step` a period; between the distances for which that takes a whole number of
    periods it is linear.
    """
    unit = distance / (step * period_s)
    count = int((math.sqrt(1 + 8 * unit) - 1) / 2)
    return (distance / period_s + step * count * (count + 1) / 2) / (count + 1)


def _shortened(values: np.ndarray, most: float) -> np.ndarray:
    norm = length(values)
    return values if norm <= most else values * (most / norm)
