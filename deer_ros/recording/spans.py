"""When which instruction was followed in a recording: by the policy node's goals, or by what people said and judged."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from deer_ros import graph
from deer_ros.control.goal import GoalOutcome
from deer_ros.recording.runs import RUNNING, RecordedGoal, Runs
from deer_ros.robot_frame import STATIC

HALF_OPEN_M = 0.04
"""A commanded opening above this means open."""
UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Span:
    """A stretch of a recording with one instruction.

    Attributes:
        instruction: the words.
        outcome: 'DONE', or what else became of it.
        task: as whoever judged it called it; empty if nobody did.
        stamps: of the static images in it, ascending.
        goal: of the policy node, or None if somebody else followed it.
    """

    instruction: str
    outcome: str
    task: str
    stamps: tuple[int, ...]
    goal: RecordedGoal | None = None


def spans(runs: Runs) -> Iterator[Span]:
    """The goals of the policy node; where there is none, each message on `instruction` until the next one or until
    somebody publishes `subtask_done`."""
    if runs.goals:
        yield from (_of_goal(runs, goal) for goal in runs.goals)
        return
    said = runs.tells[graph.INSTRUCTION]
    for place, item in enumerate(said):
        until_ns = said[place + 1].log_ns if place + 1 < len(said) else None
        judged = [
            done
            for done in runs.tells[graph.SUBTASK_DONE]
            if done.log_ns > item.log_ns and (until_ns is None or done.log_ns < until_ns)
        ]
        if judged:
            until_ns = judged[0].log_ns
        stamps = tuple(
            stamp
            for stamp in runs.stamps[STATIC]
            if runs.logged[stamp] > item.log_ns and (until_ns is None or runs.logged[stamp] <= until_ns)
        )
        outcome = GoalOutcome.DONE.name if judged else UNKNOWN
        yield Span(str(item.content.data).strip(), outcome, str(judged[0].content.task) if judged else "", stamps)


def _of_goal(runs: Runs, goal: RecordedGoal) -> Span:
    """From the newest frame at its beginning to the first one after its end, which shows where the last motion led.

    A goal whose beginning was not recorded begins with the first frame that was answered."""
    stamps = runs.stamps[STATIC]
    begin_ns = goal.told.stamp_ns
    if goal.told.content.outcome != RUNNING and goal.steps:
        begin_ns = goal.steps[0].stamp_ns
    first = bisect_left(stamps, begin_ns)
    last = len(stamps) if goal.ended is None else bisect_right(stamps, goal.ended.stamp_ns) + 1
    return Span(goal.instruction, goal.outcome, _task(runs, goal), tuple(stamps[first:last]), goal)


def _task(runs: Runs, goal: RecordedGoal) -> str:
    """The task of the judgement that ended the goal."""
    ended = goal.ended
    if ended is None or goal.outcome != GoalOutcome.DONE.name:
        return ""
    judged = [done for done in runs.tells[graph.SUBTASK_DONE] if done.stamp_ns > goal.told.stamp_ns]
    return str(judged[0].content.task) if judged else ""
