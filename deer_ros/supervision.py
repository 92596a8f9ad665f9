"""Brings managed nodes to active in order, watches them, and ends everything when the safety node fails.

One implementation with two hosts: `deer up` and the demo run it beside the processes that they start, and under
`ros2 launch` the supervisor node does. It belongs to a node, runs on that node's executor and never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deer_msgs.msg import SafetyState
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.clock import Clock, ClockType

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.quality import LATCHED

if TYPE_CHECKING:
    from rclpy.node import Node

PERIOD_S = 0.05
ANSWER_S = 5.0
"""A question that is not answered within this time is followed by one about the node's state; a node that is busy with
a transition answers none before it is done."""
LOOK_S = 0.5
"""How often a node that is up is looked at."""
_NEXT = {
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
}
_NAMES = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}


@dataclass(frozen=True)
class SupervisionSettings:
    """What is supervised.

    Attributes:
        names: managed nodes, in the order in which they are brought up.
        timeout_s: for each node to appear, and for each of its transitions.
        safety_silence_s: without word of the safety node for so long, everything ends.
    """

    names: tuple[str, ...]
    timeout_s: float = 120.0
    safety_silence_s: float = 1.0

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or not all(self.names):
            raise ConfigError(f"node names {list(self.names)} must be different and not empty")
        for name in ("timeout_s", "safety_silence_s"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"supervision {name} is {getattr(self, name)}; it must be a positive finite number")


class Supervisor:
    """Calls `on_up` each time all nodes are active; when it gives up, `on_failure` with why and because of which node.

    `failure` keeps the reason; `ticked_s`, of the monotonic clock, is when the executor came by last.

    A node that is started anew (its process died and came back) is brought up again. One that somebody deactivated is
    left as it is.

    Args:
        node: whose executor runs it.
        settings: what is supervised.
        on_up, on_failure: called on the executor's thread.
    """

    def __init__(
        self,
        node: Node,
        settings: SupervisionSettings,
        on_up: Callable[[], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.failure = ""
        self.up = False
        self.ticked_s = time.monotonic()
        self._node = node
        self._settings = settings
        self._on_up = on_up
        self._on_failure = on_failure
        self._peers = [_Peer(node, name, settings.timeout_s) for name in settings.names]
        self._safety_heard_s: float | None = None
        self._subscription = node.create_subscription(SafetyState, graph.SAFETY_STATE, self._on_safety, LATCHED)
        self._timer = node.create_timer(PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Ends the supervision and leaves the nodes as they are."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        for peer in self._peers:
            peer.close()

    def _on_safety(self, message: SafetyState) -> None:
        self._safety_heard_s = time.monotonic()

    def _tick(self) -> None:
        now_s = self.ticked_s = time.monotonic()
        if self.failure:
            return
        for peer in self._peers:
            peer.tick(now_s)
            if peer.failure:
                self._fail(peer.failure, peer.name)
                return
            if not peer.up:
                self.up = False
                return
        if not self.up:
            self.up = True
            # What was said before everything was up says nothing about now.
            self._safety_heard_s = now_s
            self._on_up()
        self._watch_safety(now_s)

    def _watch_safety(self, now_s: float) -> None:
        if "safety" not in self._settings.names or self._safety_heard_s is None:
            return
        if now_s - self._safety_heard_s > self._settings.safety_silence_s:
            silence_s = self._settings.safety_silence_s
            self._fail(f"nothing was heard of the safety node for {silence_s:g} s", "safety")

    def _fail(self, reason: str, culprit: str) -> None:
        """All other nodes are deactivated, the last one first; nobody waits for them."""
        self.failure = reason
        for peer in reversed(self._peers):
            peer.deactivate()
        self._on_failure(reason, culprit)


class _Peer:
    """One managed node: what it was asked last, and how far it has come."""

    def __init__(self, node: Node, name: str, timeout_s: float) -> None:
        self.failure = ""
        self.up = False
        self.name = name
        self._node = node
        self._timeout_s = timeout_s
        self._get: Any = node.create_client(GetState, f"{name}/get_state")
        self._changer: Any = node.create_client(ChangeState, f"{name}/change_state")
        self._future: Any = None
        self._transition: int | None = None
        self._changing: tuple[int, float] | None = None
        self._asked_s = self._since_s = time.monotonic()
        self._known: set[bytes] = set()

    def tick(self, now_s: float) -> None:
        """Asks the next question or takes the answer to the last one."""
        if self._changing is not None and now_s - self._changing[1] > self._timeout_s:
            self.failure = f"node {self.name} did not {_NAMES[self._changing[0]]} within {self._timeout_s:g} s"
        elif self._future is not None:
            self._await(now_s)
        elif self.up and now_s - self._asked_s < LOOK_S:
            return
        elif not self._get.service_is_ready():
            if not self.up and now_s - self._since_s > self._timeout_s:
                self.failure = f"node {self.name} did not come up within {self._timeout_s:g} s; its log says why"
        else:
            self._ask(now_s, None)

    def deactivate(self) -> None:
        """Asks the node to become inactive, if it is active and can be asked at all."""
        if self.up and self._changer.service_is_ready():
            request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
            self._changer.call_async(request)

    def close(self) -> None:
        """Gives back the clients."""
        self._node.destroy_client(self._get)
        self._node.destroy_client(self._changer)

    def _ask(self, now_s: float, transition: int | None) -> None:
        self._asked_s, self._transition = now_s, transition
        if transition is None:
            self._future = self._get.call_async(GetState.Request())
        else:
            self._future = self._changer.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def _await(self, now_s: float) -> None:
        """Takes the answer. One that does not come is no verdict: under load, ROS 2 loses answers of services."""
        if not self._future.done():
            if now_s - self._asked_s > ANSWER_S:
                self._future.cancel()
                self._future = None
                self._ask(now_s, None)
            return
        answer, self._future = self._future.result(), None
        if self._transition is None:
            self._take_state(answer.current_state.id, now_s)
        elif not answer.success:
            self.failure = f"node {self.name} can't {_NAMES[self._transition]}; its log says why"
        else:
            self._ask(now_s, None)

    def _take_state(self, state: int, now_s: float) -> None:
        """Once up, only a new process is brought up again: a node that somebody deactivated stays so."""
        endpoints = self._endpoints()
        if self.up and state == State.PRIMARY_STATE_UNCONFIGURED and endpoints - self._known:
            self.up, self._since_s = False, now_s
        if self.up:
            return
        if state == State.PRIMARY_STATE_ACTIVE:
            self.up, self._known = True, self._known | endpoints
            self._changing = None
        elif state in _NEXT:
            self._change(now_s, _NEXT[state])

    def _change(self, now_s: float, transition: int) -> None:
        """Asks for a transition, again if nothing came of the last time."""
        if self._changing is None or self._changing[0] != transition:
            self._changing = (transition, now_s)
        self._ask(now_s, transition)

    def _endpoints(self) -> set[bytes]:
        """What tells one process of that name from the next."""
        topic = self._node.resolve_topic_name(f"{self.name}/transition_event")
        return {bytes(info.endpoint_gid) for info in self._node.get_publishers_info_by_topic(topic)}
