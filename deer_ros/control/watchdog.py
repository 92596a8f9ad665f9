"""Whether commands may pass, and whose: the safety node's state machine, judged by when messages are received."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from deer_policies.errors import ConfigError

REJECTION_S = 0.5
"""After an action that can't be right, none is taken for so long: whoever sent it may send more between good ones."""


class GateState(enum.IntEnum):
    """The values of `deer_msgs/SafetyState`."""

    STOPPED = 0
    HOLDING = 1
    ARMED = 2
    TAKEN_OVER = 3


@dataclass(frozen=True)
class WatchdogSettings:
    """How long, in seconds of the receiver's clock, what came last counts as fresh.

    The sender's stamps are not used: a wrong clock there would make old commands look fresh for ever.

    Attributes:
        command_timeout_s: of the policy's actions, and of the operator's commands.
        joint_timeout_s: of joint states.
        image_timeout_s: by name of the topic, of the images that the policy acts on.
    """

    command_timeout_s: float
    joint_timeout_s: float
    image_timeout_s: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = {name: getattr(self, name) for name in ("command_timeout_s", "joint_timeout_s")}
        named |= {f"image_timeout_s of {name}": value for name, value in self.image_timeout_s.items()}
        for name, value in named.items():
            if not (np.isfinite(value) and value > 0.0):
                raise ConfigError(f"watchdog {name} is {value}; it must be a positive finite number of seconds")


class Watchdog:
    """The state machine. Times are seconds of one monotonic clock, passed in by the caller.

    STOPPED lets nothing pass and is left by `arm` alone, which is refused while the e-stop is pressed or the node is
    not active. HOLDING becomes ARMED with a good action of the policy, and ARMED becomes HOLDING when one is refused or
    anything is stale. TAKEN_OVER, which an operator enters and leaves by name, lets the operator's commands pass and
    none of the policy's. A stop outlives deactivation.

    Args:
        settings: timeouts.
        arm_on_start: whether activation arms by itself, unless a stop is latched.
    """

    def __init__(self, settings: WatchdogSettings, arm_on_start: bool = False) -> None:
        self.settings = settings
        self._arm_on_start = arm_on_start
        self._active = False
        self._latched = False
        self._pressed = False
        self._last_command_s = -np.inf
        self._rejected_s = -np.inf
        self._last_joints_s = -np.inf
        self._last_image_s = dict.fromkeys(settings.image_timeout_s, -np.inf)
        self.state, self.reason = GateState.STOPPED, "the safety node is not active"

    @property
    def passes(self) -> bool:
        """Whether the newest command may move the arm."""
        driven = self.state is GateState.TAKEN_OVER and np.isfinite(self._last_command_s)
        return self.state is GateState.ARMED or driven

    def activate(self) -> None:
        """The node becomes active."""
        self._active = True
        self._forget_command()
        if self._latched:
            return
        if self._arm_on_start:
            self.state, self.reason = GateState.HOLDING, "no command yet"
        else:
            self.state, self.reason = GateState.STOPPED, "not armed yet"

    def deactivate(self) -> None:
        """The node is active no more: nothing passes, and a takeover ends."""
        self._active = False
        self._forget_command()
        if not self._latched:
            self.state, self.reason = GateState.STOPPED, "the safety node is not active"

    def stop(self, reason: str) -> None:
        """Latches a stop; the reason of the first one stays."""
        if not self._latched:
            self.state, self.reason = GateState.STOPPED, reason
        self._latched = True
        self._forget_command()

    def press(self, pressed: bool) -> None:
        """The e-stop button is pressed, which stops, or let go, which does not arm."""
        self._pressed = pressed
        if pressed:
            self.stop("the e-stop is pressed")

    def arm(self) -> str:
        """Leaves a stop; what was received before counts no more. Returns why it can't be, or nothing."""
        if self._pressed:
            return "the e-stop is pressed; let it go first"
        if not self._active:
            return "the safety node is not active; activate it first"
        if self.state is GateState.STOPPED:
            self._latched = False
            self._rejected_s = -np.inf
            self._forget_command()
            self.state, self.reason = GateState.HOLDING, "no command since arming"
        return ""

    def take_over(self) -> str:
        """Gives the arm to the operator. Returns why it can't be, or nothing."""
        if self.state is GateState.STOPPED:
            return f"stopped ({self.reason}); arm first"
        if self.state is not GateState.TAKEN_OVER:
            self._forget_command()
            self.state, self.reason = GateState.TAKEN_OVER, "the operator has the arm"
        return ""

    def hand_back(self) -> None:
        """Gives the arm back to the policy, which has to send a new action."""
        if self.state is GateState.TAKEN_OVER:
            self._forget_command()
            self.state, self.reason = GateState.HOLDING, "the operator has handed back"

    def joints(self, now_s: float) -> None:
        """A good joint state has come in."""
        self._last_joints_s = now_s

    def image(self, name: str, now_s: float) -> None:
        """An image has come in."""
        self._last_image_s[name] = now_s

    def stale(self, now_s: float) -> str:
        """What the policy or the operator needs and has not come in lately, in words, or nothing."""
        if now_s - self._last_joints_s > self.settings.joint_timeout_s:
            return f"no joint state for {self.settings.joint_timeout_s:g} s; check the topic joint_states"
        if self.state is not GateState.TAKEN_OVER:
            for name, timeout_s in self.settings.image_timeout_s.items():
                if now_s - self._last_image_s[name] > timeout_s:
                    return f"no image on {name} for {timeout_s:g} s; check that camera"
        return ""

    def command(self, now_s: float, limited: str) -> None:
        """A good action of the policy has come in; `limited` says what was taken from it, or is empty."""
        if self.state in (GateState.HOLDING, GateState.ARMED) and now_s - self._rejected_s > REJECTION_S:
            self._last_command_s = now_s
            self.state, self.reason = GateState.ARMED, limited

    def operate(self, now_s: float, limited: str) -> None:
        """A good command of the operator has come in."""
        if self.state is GateState.TAKEN_OVER:
            self._last_command_s = now_s
            self.reason = limited or "the operator drives"

    def reject(self, reason: str, now_s: float) -> None:
        """An action can't be right: hold, and take none for a while."""
        self.refuse(reason)
        self._rejected_s = now_s

    def refuse(self, reason: str) -> None:
        """A command was refused: hold."""
        if self.state in (GateState.HOLDING, GateState.ARMED):
            self.state, self.reason = GateState.HOLDING, reason
        elif self.state is GateState.TAKEN_OVER:
            self.reason = reason
        self._forget_command()

    def check(self, now_s: float) -> None:
        """Holds if the newest command, or what it was made from, is stale."""
        if not self.passes:
            return
        if now_s - self._last_command_s > self.settings.command_timeout_s:
            self.refuse(f"no command for {self.settings.command_timeout_s:g} s")
        elif stale := self.stale(now_s):
            self.refuse(stale)

    def _forget_command(self) -> None:
        self._last_command_s = -np.inf
