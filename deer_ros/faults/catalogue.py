"""The faults: what is done to the running arm, what undoes it, and within which limit the arm is to hold."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deer_ros.faults.bench import FaultBench
from deer_ros.faults.motion_record import MOVING_M_S as SLOWEST_M_S

AT_ONCE = "at once"
COMMAND, JOINT, IMAGE, DRIVER = "command_timeout_s", "joint_timeout_s", "image_timeout_s", "driver's own timeout"
UNCHANGED_VIEW = "frozen_view_m"
RUNS_ON = "the arm goes on"
FLOOD_HZ = 1000.0
PERIOD_S = 1 / 30
"""Until the next message of a driver or the policy would have come."""
ASKED_S = 3 * PERIOD_S
"""Until deer-nano is asked again, whose chunks have three actions, or has answered the last good frame."""
MODEL_S = ASKED_S + 2 * PERIOD_S
"""Until a step that is under way has ended and its chunk is executed."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: for the command line.
        what: for the table.
        limit: what tells it: a timeout by the name of its parameter, AT_ONCE, the way that the tool may make with an
            unchanged view, or RUNS_ON if the arm need not hold.
        inject: makes it happen; returns when it has.
        delay_s: until the first thing is wrong, at most: what came just before was right.
        clear: undoes it; motion is asked for anew after that.
        ends_everything: whether the bring-up ends with it and has to be started again.
        no_arm: whether the arm's own position can't be heard any more; commands are judged alone then.
    """

    name: str
    what: str
    limit: str
    inject: Callable[[FaultBench], None]
    clear: Callable[[FaultBench], None] = lambda bench: None
    delay_s: float = PERIOD_S
    ends_everything: bool = False
    no_arm: bool = False


def noticed_s(fault: Fault, parameters: dict[str, float]) -> float | None:
    """Seconds within which a fault is noticed, for the parameters in force; None where the arm need not hold."""
    if fault.limit == RUNS_ON:
        return None
    if fault.limit == AT_ONCE:
        return fault.delay_s
    if fault.limit == UNCHANGED_VIEW:
        return fault.delay_s + parameters[UNCHANGED_VIEW] / SLOWEST_M_S + parameters[COMMAND]
    return fault.delay_s + parameters[COMMAND if fault.limit == DRIVER else fault.limit]


def _kill(process: str) -> Callable[[FaultBench], None]:
    return lambda bench: bench.stack.processes[process].kill()


def _signal(process: str, number: signal.Signals) -> Callable[[FaultBench], None]:
    return lambda bench: os.kill(bench.stack.processes[process].pid, number)


def _kill_driver(bench: FaultBench) -> None:
    bench.driver.running["simulator"].kill()


def _start_driver(bench: FaultBench, late: bool = False) -> None:
    bench.driver.running["simulator"].wait()
    bench.start_driver(late)
    bench.bring_up_driver()


def _start_late_driver(bench: FaultBench) -> None:
    _start_driver(bench, late=True)


def _wrong(
    name: str,
    what: str,
    parameter: str,
    bad: object,
    good: object,
    limit: str = COMMAND,
    delay_s: float = ASKED_S,
    no_arm: bool = False,
) -> Fault:
    """A fault of the driver: one of the simulator's parameters has a bad value for a while."""

    def inject(bench: FaultBench) -> None:
        bench.set_driver(**{parameter: bad})

    def clear(bench: FaultBench) -> None:
        bench.set_driver(**{parameter: good})

    return Fault(name, what, limit, inject, clear, delay_s, no_arm=no_arm)


def _trouble(what: str) -> Callable[[FaultBench], None]:
    return lambda bench: bench.trouble(what)


def _release(bench: FaultBench) -> None:
    bench.press(False)


def _take_over(bench: FaultBench) -> None:
    bench.take_over(True)


def _hand_back(bench: FaultBench) -> None:
    bench.take_over(False)


class _Sender:
    """Sends somebody else's actions at a rate, on a thread of its own, until it is stopped."""

    def __init__(self, values: np.ndarray, rate_hz: float) -> None:
        self._values = values
        self._rate_hz = rate_hz
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, bench: FaultBench) -> None:
        """Begins; it sends with all the rest."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(bench,), daemon=True)
        bench.act(self._values)
        self._thread.start()

    def stop(self, bench: FaultBench) -> None:
        """Ends."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, bench: FaultBench) -> None:
        next_s = time.monotonic()
        while not self._stop.is_set():
            bench.act(self._values)
            next_s = max(next_s + 1.0 / self._rate_hz, time.monotonic() - 0.1)
            time.sleep(max(0.0, next_s - time.monotonic()))


_flood = _Sender(np.array((0.5, 0, 0, 0, 0, 0, 1)), FLOOD_HZ)
_nan = _Sender(np.full(7, np.nan), 30.0)

FAULTS: tuple[Fault, ...] = (
    Fault("policy-killed", "policy process killed (-9)", COMMAND, _kill("policy")),
    Fault(
        "policy-hangs",
        "policy process stopped (SIGSTOP)",
        COMMAND,
        _signal("policy", signal.SIGSTOP),
        _signal("policy", signal.SIGCONT),
    ),
    Fault("model-freezes", "model thread does not return", COMMAND, _trouble("freeze"), _trouble("none"), MODEL_S),
    Fault("model-raises", "model raises an error", AT_ONCE, _trouble("raise"), _trouble("none"), MODEL_S),
    Fault(
        "out-of-memory", "model out of memory in all exits but the first", RUNS_ON, _trouble("memory"), _trouble("none")
    ),
    Fault("safety-killed", "safety process killed (-9)", DRIVER, _kill("safety"), ends_everything=True),
    Fault(
        "safety-hangs",
        "safety process stopped (SIGSTOP)",
        DRIVER,
        _signal("safety", signal.SIGSTOP),
        ends_everything=True,
    ),
    Fault("driver-killed", "simulated arm killed (-9)", JOINT, _kill_driver, _start_driver, no_arm=True),
    Fault(
        "late-discovery",
        "simulated arm killed, started anew and discovered late",
        JOINT,
        _kill_driver,
        _start_late_driver,
        no_arm=True,
    ),
    _wrong("cameras-stop", "cameras send nothing", "camera_dropout", 1.0, 0.0, IMAGE, PERIOD_S),
    _wrong("cameras-repeat", "cameras repeat one message", "camera_repeats", True, False),
    _wrong("cameras-frozen", "one picture, with new stamps", "camera_frozen", True, False, UNCHANGED_VIEW),
    _wrong("cameras-lag", "images come 1 s late", "camera_latency_s", 1.0, 0.0),
    _wrong("wrong-size", "images of half the size", "camera_scale", 0.5, 1.0),
    _wrong("wrong-encoding", "images in 32FC1", "camera_encoding", "32FC1", "rgb8"),
    _wrong("camera-clock-ahead", "cameras' clock jumps 10 s ahead", "camera_stamp_offset_s", 10.0, 0.0),
    _wrong("camera-clock-back", "cameras' clock jumps 10 s back", "camera_stamp_offset_s", -10.0, 0.0),
    _wrong("joints-stop", "joint states stop", "joint_dropout", 1.0, 0.0, JOINT, PERIOD_S, no_arm=True),
    _wrong("joints-nan", "joint states are not a number", "nan_joints", True, False, JOINT, PERIOD_S, no_arm=True),
    Fault("flood", f"somebody's actions at {FLOOD_HZ:g} Hz", AT_ONCE, _flood.start, _flood.stop),
    Fault("nan-actions", "somebody's actions are not a number", AT_ONCE, _nan.start, _nan.stop),
    Fault("e-stop", "e-stop pressed", AT_ONCE, lambda bench: bench.press(True), _release),
    Fault("takeover", "operator takes over", AT_ONCE, _take_over, _hand_back),
)
"""In the order of the table."""
