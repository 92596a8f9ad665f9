"""A goal ends once, for one reason."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_ros.control.action_queue import ActionQueue
from deer_ros.control.goal import Goal, GoalLimits, GoalOutcome, gripper_action_now

LIMITS = GoalLimits(default_max_steps=360, frame_timeout_s=2.0)


def make_goal(instruction="open the drawer", max_steps=3, began_stamp_s=5.0):
    return Goal(b"0" * 16, instruction, max_steps, began_stamp_s, progress_s=0.0, queue=ActionQueue(1, 1.0))


def test_the_first_end_is_the_end():
    goal = make_goal()
    assert goal.end(GoalOutcome.CANCELLED, "cancelled")
    assert not goal.end(GoalOutcome.DONE, "done")
    assert not goal.judged_done(6.0, "open_drawer")
    assert (goal.outcome, goal.reason) == (GoalOutcome.CANCELLED, "cancelled")


def test_a_judgement_of_an_older_frame_does_not_count():
    goal = make_goal(began_stamp_s=5.0)
    assert not goal.judged_done(5.0, "open_drawer")
    assert not goal.ended
    assert goal.judged_done(5.1, "open_drawer")
    assert goal.outcome is GoalOutcome.DONE


def test_it_times_out_with_the_frame_after_the_last_step():
    goal = make_goal(max_steps=3)
    for _ in range(3):
        assert goal.new_frame(0.1)
        goal.steps += 1
    assert not goal.new_frame(0.2)
    assert goal.outcome is GoalOutcome.TIMEOUT


def test_it_fails_without_frames_and_says_what_was_wrong():
    goal = make_goal()
    assert not goal.check(1.9, LIMITS, "")
    goal.new_frame(1.0)
    assert not goal.check(2.9, LIMITS, "")
    assert goal.check(3.1, LIMITS, "camera/static/image_raw: image encoding 'yuv422' can't be read")
    assert goal.outcome is GoalOutcome.FAILED
    assert "yuv422" in goal.reason


@pytest.mark.parametrize("instruction", ["", "   ", "x" * 513, 7])
def test_bad_instructions_are_refused(instruction):
    with pytest.raises(ConfigError, match="instruction"):
        make_goal(instruction)


@pytest.mark.parametrize(
    ("commanded", "opening_m", "expected"),
    [
        (None, 0.08, 1.0),
        (None, 0.0, -1.0),
        (1.0, 0.08, 1.0),
        (-1.0, 0.0, -1.0),
        (-1.0, 0.05, -1.0),
        (1.0, 0.03, 1.0),
        (-1.0, 0.08, 1.0),
        (1.0, 0.0, -1.0),
    ],
)
def test_gripper_action_at_the_start(commanded, opening_m, expected):
    """The command counts unless the measured opening shows that the robot was moved since."""
    assert gripper_action_now(commanded, opening_m) == expected


@pytest.mark.parametrize(("steps", "timeout_s"), [(0, 1.0), (10, 0.0), (10, np.nan)])
def test_limits_are_checked(steps, timeout_s):
    with pytest.raises(ConfigError):
        GoalLimits(steps, timeout_s)
