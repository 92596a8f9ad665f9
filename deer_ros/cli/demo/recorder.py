"""Listens to the running stack and joins each exit report with the images that the step answered."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right

from deer_ros.client import Frame, StackClient, StepReport
from deer_sim.film import Shot

REPORTS_LATE_S = 1.0
"""An action's result can overtake the last exit reports, which come on a topic of their own; they get this long."""


class Recorder:
    """Collects what the topics carry; `subtask` hands out the steps since the last call of `begin`."""

    def __init__(self, client: StackClient) -> None:
        self._lock = threading.Lock()
        self._frames: list[Frame] = []
        self._reports: list[StepReport] = []
        client.on_frame(self._take_frame)
        client.on_exit_report(self._take_report)

    def begin(self) -> None:
        """Forgets the steps so far; the newest frame is kept, since the next step answers it."""
        with self._lock:
            self._frames = self._frames[-1:]
            self._reports = []

    def subtask(self, number: int, instruction: str, steps: int) -> tuple[Shot, ...]:
        """The steps of a subtask that took `steps` of them, once their reports have come in."""
        deadline = time.monotonic() + REPORTS_LATE_S
        while time.monotonic() < deadline:
            with self._lock:
                if len(self._reports) >= steps:
                    break
            time.sleep(0.01)
        with self._lock:
            return join(self._frames, self._reports, number, instruction)

    def _take_frame(self, frame: Frame) -> None:
        with self._lock:
            self._frames.append(frame)

    def _take_report(self, report: StepReport) -> None:
        with self._lock:
            self._reports.append(report)


def join(frames: list[Frame], reports: list[StepReport], subtask: int, instruction: str) -> tuple[Shot, ...]:
    """Joins reports with the frames of the same stamp.

    Image topics are best effort: a step whose frame was lost shows the frame before it, and a step without any frame
    before it is left out.
    """
    frames = sorted(frames, key=lambda frame: frame.stamp_s)
    stamps = [frame.stamp_s for frame in frames]
    shots = []
    for report in reports:
        place = bisect_right(stamps, report.stamp_s)
        if place == 0:
            continue
        frame = frames[place - 1]
        shots.append(
            Shot(
                rgb_static=frame.rgb_static,
                rgb_gripper=frame.rgb_gripper,
                instruction=instruction,
                subtask=subtask,
                step=report.step,
                report=report.report,
                budget_gmac=report.budget_average_llm_gmac or None,
            )
        )
    return tuple(shots)
