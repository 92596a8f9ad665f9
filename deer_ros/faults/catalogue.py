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
from deer_ros.faults.circling_policy import SPEED_M_S

AT_ONCE = "at once"
COMMAND, JOINT, IMAGE, DRIVER = "command_timeout_s", "joint_timeout_s", "image_timeout_s", "driver's own timeout"
UNCHANGED_VIEW = "frozen_view_m"
RUNS_ON = "the arm goes on"
FLOOD_HZ = 1000.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: for the command line.
        what: for the table.
        limit: what says that something is wrong: a timeout by the name of its parameter, AT_ONCE, or RUNS_ON if the arm
            need not hold.
        inject: makes it happen; returns when it has.
        clear: undoes it; motion is asked for anew after that.
        ends_everything: whether the bring-up ends with it and has to be started again.
        no_arm: whether the arm's own position can't be heard any more; commands are judged alone then.
    """

    name: str
    what: str
    limit: str
    inject: Callable[[FaultBench], None]
    clear: Callable[[FaultBench], None] = lambda bench: None
    ends_everything: bool = False
    no_arm: bool = False


def limit_s(limit: str, parameters: dict[str, float]) -> float | None:
    """Seconds of a fault's limit for the parameters in force; None where the arm need not hold."""
    if limit == RUNS_ON:
        return None
    if limit == AT_ONCE:
        return 0.0
    if limit == UNCHANGED_VIEW:
        return parameters[UNCHANGED_VIEW] / SPEED_M_S + parameters[COMMAND]
    return parameters[COMMAND if limit == DRIVER else limit]


def _kill(process: str) -> Callable[[FaultBench], None]:
    return lambda bench: bench.stack.processes[process].kill()


def _signal(process: str, number: signal.Signals) -> Callable[[FaultBench], None]:
    return lambda bench: os.kill(bench.stack.processes[process].pid, number)


def _kill_driver(bench: FaultBench) -> None:
    bench.driver.running["simulator"].kill()


def _start_driver(bench: FaultBench) -> None:
    bench.driver.running["simulator"].wait()
    bench.start_driver()
    bench.bring_up_driver()


def _driver(**values: object) -> Callable[[FaultBench], None]:
    return lambda bench: bench.set_driver(**values)


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
    Fault("model-freezes", "model thread does not return", COMMAND, _trouble("freeze"), _trouble("none")),
    Fault("model-raises", "model raises an error", AT_ONCE, _trouble("raise"), _trouble("none")),
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
    Fault("cameras-stop", "cameras send nothing", IMAGE, _driver(camera_dropout=1.0), _driver(camera_dropout=0.0)),
    Fault(
        "cameras-repeat",
        "cameras repeat one message",
        COMMAND,
        _driver(camera_repeats=True),
        _driver(camera_repeats=False),
    ),
    Fault(
        "cameras-frozen",
        "one picture, with new stamps",
        UNCHANGED_VIEW,
        _driver(camera_frozen=True),
        _driver(camera_frozen=False),
    ),
    Fault("cameras-lag", "images come 1 s late", COMMAND, _driver(camera_latency_s=1.0), _driver(camera_latency_s=0.0)),
    Fault("wrong-size", "images of half the size", COMMAND, _driver(camera_scale=0.5), _driver(camera_scale=1.0)),
    Fault(
        "wrong-encoding", "images in 32FC1", COMMAND, _driver(camera_encoding="32FC1"), _driver(camera_encoding="rgb8")
    ),
    Fault(
        "camera-clock-ahead",
        "cameras' clock jumps 10 s ahead",
        COMMAND,
        _driver(camera_stamp_offset_s=10.0),
        _driver(camera_stamp_offset_s=0.0),
    ),
    Fault(
        "camera-clock-back",
        "cameras' clock jumps 10 s back",
        COMMAND,
        _driver(camera_stamp_offset_s=-10.0),
        _driver(camera_stamp_offset_s=0.0),
    ),
    Fault(
        "joints-stop", "joint states stop", JOINT, _driver(joint_dropout=1.0), _driver(joint_dropout=0.0), no_arm=True
    ),
    Fault(
        "joints-nan",
        "joint states are not a number",
        JOINT,
        _driver(nan_joints=True),
        _driver(nan_joints=False),
        no_arm=True,
    ),
    Fault("flood", f"somebody's actions at {FLOOD_HZ:g} Hz", AT_ONCE, _flood.start, _flood.stop),
    Fault("nan-actions", "somebody's actions are not a number", AT_ONCE, _nan.start, _nan.stop),
    Fault("e-stop", "e-stop pressed", AT_ONCE, lambda bench: bench.press(True), _release),
    Fault("takeover", "operator takes over", AT_ONCE, _take_over, _hand_back),
)
"""In the order of the table."""
