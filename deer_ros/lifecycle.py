"""The base of managed nodes: one discipline for every transition, so that a node only says what to do in each."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from rclpy.event_handler import EventHandler
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle import Node as LifecycleNode
from rclpy.waitable import Waitable

from deer_policies.errors import DeerError

EVENT_PERIOD_S, EVENT_LOOK_S = 1.0, 0.02
"""Events of publishers and subscriptions are looked at this often, for so long."""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclass gives `set_up`, and `start`, `halt` and `release` where it needs them.

    Whatever fails in `set_up` or `start` is logged with its reason, released, and answered with FAILURE, so that the
    transition can be tried again; `halt` runs before everything that ends activity, with the reason for it.
    """

    def __init__(self, name: str, **options: Any) -> None:
        # A parameter that is refused ends the node at once, and with it what this list holds.
        self._releases: list[Callable[[], object]] = []
        self._looked_s = -math.inf
        super().__init__(name, **options)
        self.active = False

    @property
    def waitables(self) -> Iterator[Waitable[Any]]:
        """What the executor asks before and after each wait.

        Publishers and subscriptions each have events, such as a partner of another quality of service. Asking twenty of
        them takes as long as all the rest of a wait, so they are left out most of the time. They keep: one that is
        there when a look begins ends the wait at once, and one that comes during a longer wait is found at the next.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s > EVENT_PERIOD_S:
            self._looked_s = now_s
        looks = now_s - self._looked_s < EVENT_LOOK_S
        for waitable in super().waitables:
            if looks or not isinstance(waitable, EventHandler):
                yield waitable

    def set_up(self) -> None:
        """Configure: load, check and make everything, so that `start` is instant."""
        raise NotImplementedError

    def start(self) -> None:
        """Activate."""

    def halt(self, reason: str) -> None:
        """End what is under way; called once before the node leaves the active state."""

    def release(self) -> None:
        """Give back all that `set_up` took, as far as it got: what it put into `_releases`, the last thing first."""
        while self._releases:
            self._releases.pop()()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """unconfigured -> inactive."""
        if self._attempt("configure", self.set_up):
            return TransitionCallbackReturn.SUCCESS
        self.release()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """inactive -> active."""
        if not self._attempt("activate", self.start):
            return TransitionCallbackReturn.FAILURE
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """active -> inactive."""
        self._leave_active("the node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """inactive -> unconfigured."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """any state -> finalized."""
        self._leave_active("the node was shut down")
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """An unforeseen error in a transition: back to unconfigured."""
        self._leave_active("an error in a transition")
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Ends activity before the node goes; with its context gone (a signal), nothing can be said any more."""
        try:
            if self.context.ok():
                self._leave_active("the process ends")
        except rclpy_implementation.RCLError:
            if self.context.ok():
                raise
        self.release()
        super().destroy_node()

    def _leave_active(self, reason: str) -> None:
        if self.active:
            self.active = False
            self.halt(reason)

    def _attempt(self, name: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except DeerError as error:
            self.get_logger().error(f"can't {name}: {error}")
            return False
        except Exception:
            self.get_logger().error(f"can't {name}:\n{traceback.format_exc()}")
            return False
        return True
