"""Listens to the running stack and joins each control step with the images that it answered and the last report."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right

from deer_ros.client import StackClient
from deer_ros.reports import Frame, StepAction, StepReport
from deer_sim.film import Shot

LATE_S = 1.0
"""A goal's result can overtake the last actions and reports, which come on other topics; they get this long."""


class Recorder:
    """Collects what the topics carry; `subtask` hands out the control steps since the last call of `begin`."""

    def __init__(self, client: StackClient) -> None:
        self._lock = threading.Lock()
        self._frames: list[Frame] = []
        self._actions: dict[int, StepAction] = {}
        self._reports: list[StepReport] = []
        client.on_frame(self._take_frame)
        client.on_action(self._take_action)
        client.on_exit_report(self._take_report)

    def begin(self) -> None:
        """Forgets the steps so far; the newest frame is kept, since the next step answers it."""
        with self._lock:
            self._frames = self._frames[-1:]
            self._actions = {}
            self._reports = []

    def subtask(self, number: int, instruction: str, steps: int) -> tuple[Shot, ...]:
        """The control steps of a subtask that took `steps` of them, once all that is told of them has come in."""
        deadline = time.monotonic() + LATE_S
        while time.monotonic() < deadline:
            with self._lock:
                asked = sum(action.chunk_index == 0 for action in self._actions.values())
                if len(self._actions) >= steps and len(self._reports) >= asked:
                    break
            time.sleep(0.01)
        with self._lock:
            return join(self._frames, list(self._actions.values()), self._reports, number, instruction)

    def _take_frame(self, frame: Frame) -> None:
        with self._lock:
            self._frames.append(frame)

    def _take_action(self, action: StepAction) -> None:
        with self._lock:
            self._actions[action.step] = action

    def _take_report(self, report: StepReport) -> None:
        with self._lock:
            self._reports.append(report)


def join(
    frames: list[Frame], actions: list[StepAction], reports: list[StepReport], subtask: int, instruction: str
) -> tuple[Shot, ...]:
    """Joins control steps with the frames of the same stamp and the reports of the chunks that they belong to.

    Image topics are best effort: a step whose frame was lost shows the frame before it, and a step without any frame or
    report before it is left out.
    """
    frames = sorted(frames, key=lambda frame: frame.stamp_s)
    frame_stamps = [frame.stamp_s for frame in frames]
    report_stamps = [report.stamp_s for report in reports]
    shots = []
    for action in actions:
        seen, told = bisect_right(frame_stamps, action.stamp_s), bisect_right(report_stamps, action.stamp_s)
        if seen == 0 or told == 0:
            continue
        frame, report = frames[seen - 1], reports[told - 1]
        shots.append(
            Shot(
                rgb_static=frame.rgb_static,
                rgb_gripper=frame.rgb_gripper,
                instruction=instruction,
                subtask=subtask,
                step=action.step,
                report=report.report,
                budget_gmac=report.budget_average_llm_gmac or None,
                asked=action.chunk_index == 0,
            )
        )
    return tuple(shots)
