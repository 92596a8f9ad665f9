"""The chunk of actions that a goal is executing: which frame is answered from it, and which one the policy is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deer_policies.interfaces import Action


@dataclass(frozen=True)
class QueuedAction:
    """An action and its place in its chunk: 0 for the one that answers the frame which the policy was shown."""

    action: Action
    index: int


class ActionQueue:
    """Hands out a chunk, one action a frame. Each goal has a queue of its own, so that none outlives its goal.

    Gaps are judged by the stamps of frames, which all come from one clock: in lockstep that is the simulator's, so that
    a slow machine drops nothing.

    Args:
        horizon: actions in a chunk, see `deer_policies.interfaces.PolicyInfo`.
        longest_gap_s: from one frame to the next; after a longer gap, or a jump back, the world is no longer the one
            that the chunk was made for, and what is left of it is dropped.
    """

    def __init__(self, horizon: int, longest_gap_s: float) -> None:
        self.awaiting = False
        """Whether the policy was shown a frame and has not answered yet."""
        self._horizon = horizon
        self._longest_gap_s = longest_gap_s
        self._left: deque[QueuedAction] = deque()
        self._stamp_s: float | None = None
        self._unbroken_since_s = -np.inf

    @property
    def asks(self) -> bool:
        """Whether a frame that `next` has no action for is shown to the policy.

        A longer chunk that is on its way will answer the frames to come, so only a policy that answers with one action
        is shown a newer frame while it thinks.
        """
        return not self.awaiting or self._horizon == 1

    @property
    def expects(self) -> bool:
        """Whether the next frame, if it comes in time, will be shown to the policy."""
        return not self._left and self.asks

    def next(self, stamp_s: float) -> QueuedAction | None:
        """The action that answers the new frame of that stamp; None if nothing is left."""
        if self._stamp_s is not None and not 0.0 <= stamp_s - self._stamp_s <= self._longest_gap_s:
            self._left.clear()
            self._unbroken_since_s = stamp_s
        self._stamp_s = stamp_s
        return self._left.popleft() if self._left else None

    def fill(self, actions: Sequence[Action], stamp_s: float) -> QueuedAction:
        """Takes the chunk that answers the frame of that stamp, and returns its first action.

        The others wait for the frames to come, unless there was a gap since that frame.
        """
        first, *others = (QueuedAction(action, index) for index, action in enumerate(actions))
        self._left = deque(others if stamp_s >= self._unbroken_since_s else ())
        self.awaiting = False
        return first
