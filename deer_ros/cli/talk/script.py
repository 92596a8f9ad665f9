"""What is said in the demonstration, and what is expected of each line."""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION, QUESTION_BACK, STOP, ANSWER, DECLINED = "instruction", "question back", "stop", "answer", "declined"


@dataclass(frozen=True)
class Line:
    """Something that is said.

    Attributes:
        text: what.
        expected: how the robot is to take it.
        task: that it is to carry out, '' for none.
        after_motion_s: it is said so long after the tool has begun to move; None: when the robot has finished.
    """

    text: str
    expected: str
    task: str = ""
    after_motion_s: float | None = None


SCRIPT = (
    Line("open the drawer", INSTRUCTION, "open_drawer"),
    Line("what are you doing?", ANSWER),
    Line("move the sliding door", QUESTION_BACK),
    Line("to the left", INSTRUCTION, "move_slider_left"),
    Line("make me a cup of coffee", DECLINED),
    Line("turn on the yellow light", INSTRUCTION),
    Line("stop!", STOP, after_motion_s=0.1),
    Line("please turn on the green light", INSTRUCTION, "turn_on_led"),
)
"""The sixth is not carried out: the seventh comes in the middle of it."""
