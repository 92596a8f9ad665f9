"""Whether commands may pass: stopped, holding or armed, judged by when commands are received."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError


class GateState(enum.IntEnum):
    """The values of `deer_msgs/SafetyState`."""

    STOPPED = 0
    HOLDING = 1
    ARMED = 2


@dataclass(frozen=True)
class WatchdogSettings:
    """How long, in seconds of the receiver's clock, the last command and the last joint state count as fresh.

    The sender's stamps are not used: a wrong clock there would make old commands look fresh for ever.
    """

    command_timeout_s: float
    joint_timeout_s: float

    def __post_init__(self) -> None:
        for name in ("command_timeout_s", "joint_timeout_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ConfigError(f"watchdog {name} is {value}; it must be a positive finite number of seconds")


class Watchdog:
    """STOPPED is latched and left only by `arm`; HOLDING becomes ARMED with a good command, and ARMED HOLDING without.

    Times are seconds of one monotonic clock, passed in by the caller.
    """

    def __init__(self, settings: WatchdogSettings, armed: bool = False) -> None:
        self._settings = settings
        self._last_command_s = -np.inf
        self._last_joints_s = -np.inf
        self.state = GateState.HOLDING if armed else GateState.STOPPED
        self.reason = "no command yet" if armed else "not armed yet"

    def stop(self, reason: str) -> None:
        """Latches the stop."""
        self.state, self.reason = GateState.STOPPED, reason

    def arm(self) -> None:
        """Leaves a stop; commands count from now on, those received before do not."""
        if self.state is GateState.STOPPED:
            self._last_command_s = -np.inf
            self.state, self.reason = GateState.HOLDING, "no command since arming"

    def joints(self, now_s: float) -> None:
        """A good joint state has come in."""
        self._last_joints_s = now_s

    def joints_fresh(self, now_s: float) -> bool:
        """Whether the measured pose can be relied on."""
        return now_s - self._last_joints_s <= self._settings.joint_timeout_s

    def command(self, now_s: float, limited: str) -> None:
        """A good command has come in; `limited` says what was taken from it, or is empty."""
        self._last_command_s = now_s
        if self.state is not GateState.STOPPED:
            self.state, self.reason = GateState.ARMED, limited

    def refuse(self, reason: str) -> None:
        """A command was refused: hold."""
        if self.state is not GateState.STOPPED:
            self.state, self.reason = GateState.HOLDING, reason

    def check(self, now_s: float) -> None:
        """Holds if the newest command is stale."""
        if self.state is GateState.ARMED and now_s - self._last_command_s > self._settings.command_timeout_s:
            self.state = GateState.HOLDING
            self.reason = f"no command for {self._settings.command_timeout_s:g} s"
