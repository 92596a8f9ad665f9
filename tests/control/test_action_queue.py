"""The chunk that a goal is executing: one action a frame, in order, until it is done or the frames have a gap."""

import numpy as np
import pytest

from deer_policies.interfaces import Action
from deer_ros.control.action_queue import ActionQueue

PERIOD_S, GAP_S = 1 / 30, 0.2


def chunk(*values):
    return tuple(Action(np.array([value, 0, 0, 0, 0, 0, 1], np.float32)) for value in values)


def told(queued):
    return None if queued is None else (round(float(queued.action.values[0]), 3), queued.index)


@pytest.fixture
def queue():
    """A queue whose policy was shown the frame of 10 s."""
    made = ActionQueue(3, PERIOD_S + GAP_S)
    assert made.next(10.0) is None
    assert made.asks
    made.awaiting = True
    return made


def test_each_frame_gets_the_next_action_and_then_the_policy_is_asked(queue):
    assert told(queue.fill(chunk(0.1, 0.2, 0.3), 10.0)) == (0.1, 0)
    assert [told(queue.next(10.0 + number * PERIOD_S)) for number in (1, 2, 3)] == [(0.2, 1), (0.3, 2), None]
    assert queue.asks


def test_frames_that_come_while_a_chunk_is_on_its_way_wait_for_it(queue):
    assert queue.next(10.0 + PERIOD_S) is None
    assert not queue.asks
    queue.fill(chunk(0.1, 0.2, 0.3), 10.0)
    assert told(queue.next(10.0 + 2 * PERIOD_S)) == (0.2, 1)


def test_a_policy_of_single_actions_is_shown_newer_frames_while_it_thinks():
    queue = ActionQueue(1, PERIOD_S + GAP_S)
    queue.next(10.0)
    queue.awaiting = True
    assert queue.asks
    assert told(queue.fill(chunk(0.1), 10.0)) == (0.1, 0)
    assert queue.next(10.0 + PERIOD_S) is None


@pytest.mark.parametrize(("later_s", "goes_on"), [(0.9 * GAP_S, True), (1.1 * GAP_S, False), (-2.0, False)])
def test_a_gap_before_a_frame_drops_what_is_left(queue, later_s, goes_on):
    queue.fill(chunk(0.1, 0.2, 0.3), 10.0)
    assert (queue.next(10.0 + PERIOD_S + later_s) is not None) == goes_on
    assert (queue.next(10.0 + 2 * PERIOD_S + later_s) is not None) == goes_on
    assert queue.asks


def test_after_a_gap_while_the_policy_thinks_only_the_first_action_is_taken(queue):
    assert queue.next(11.0) is None
    assert told(queue.fill(chunk(0.1, 0.2, 0.3), 10.0)) == (0.1, 0)
    assert queue.next(11.0 + PERIOD_S) is None
    assert told(queue.fill(chunk(0.4, 0.5), 11.0 + PERIOD_S)) == (0.4, 0)
    assert told(queue.next(11.0 + 2 * PERIOD_S)) == (0.5, 1)
