"""One run: starts driver, safety and policy as processes, lets them work for a while, and reads their traces."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.interfaces import Observation
from deer_ros import graph, network
from deer_ros.bringup import Stack, StackConfig
from deer_sim import instructions
from latency import driver_process, machine, pictures, trace
from latency.analysis import Steps, steps
from latency.policy_process import NONE

BRINGUP = "latency"
NAMES = ("driver", "safety", "policy")
RATE_HZ = 30.0
WARM_UP_S = 2.0
"""After the first answers; frames of this time don't count."""
IN_FLIGHT_S = 0.5
"""What is under way at the end has this long to arrive."""
START_TIMEOUT_S, ASK_AGAIN_S = 15.0, 1.5
"""How long the first action may take, and when the instruction comes again, which may be refused at first."""
_PARAMETERS = graph.CONFIG_FOLDER / "arm.yaml"


@dataclass(frozen=True)
class TracedNode(graph.NodeDescription):
    """A node of the benchmark in place of the plain one."""

    @property
    def module(self) -> str:
        """The process with a trace."""
        return f"latency.{self.name}_process"


_TRACED = graph.Bringup(
    "driver, safety and policy with traces",
    (
        TracedNode("driver", vital=True),
        TracedNode("safety", managed=True, vital=True),
        TracedNode("policy", managed=True),
    ),
    (),
)


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        policy: name or path of the policy, or `NONE`.
        size: (rows, columns) of both cameras' images; None: each as the policy takes it.
        shared_memory: whether all have `deer_ros/config/fastdds.xml`, not the profile of the loopback network.
        environment: further variables of the processes.
        overrides: further parameters of the policy node.
    """

    policy: str = NONE
    size: tuple[int, int] | None = None
    shared_memory: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of the processes."""
        profile = {network.PROFILE_VARIABLES[0]: str(graph.CONFIG_FOLDER / "fastdds.xml")} if self.shared_memory else {}
        return {**profile, **self.environment}


@dataclass(frozen=True)
class Session:
    """What came of it.

    Attributes:
        steps: the frames.
        seconds: how long was measured.
        timer_late_ms: how late a bare timer beside the nodes was.
        cores: processor cores in use, by process, and by everything on the machine.
        interrupted: whether a person ended it before its time.
    """

    steps: Steps
    seconds: float
    timer_late_ms: np.ndarray
    cores: Mapping[str, float]
    interrupted: bool


def run(setup: Setup, observations: list[Observation], seconds: float, told: Callable[[float], None]) -> Session:
    """Measures for that long; a KeyboardInterrupt ends the measurement early and is not passed on.

    Args:
        setup: what to measure.
        observations: what the driver plays.
        seconds: how long, warming up apart.
        told: called with the seconds so far.
    """
    with tempfile.TemporaryDirectory(prefix="deer_latency_") as name:
        folder = Path(name)
        pictures.write(folder / driver_process.PICTURES, observations, setup.size)
        variables = {
            **setup.variables,
            trace.FOLDER: name,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        with _known():
            config = StackConfig(BRINGUP, _PARAMETERS, _overrides(setup), variables=variables)
            with Stack(config) as stack:
                span = _measure(stack, seconds, told)
        found = steps(trace.read(folder, NAMES), span.from_ns, span.to_ns)
        span_s = (span.to_ns - span.from_ns) / 1e9
        return Session(found, span_s, np.array(span.timer_late_ms), span.cores, span.interrupted)


@contextlib.contextmanager
def _known() -> Iterator[None]:
    """Makes the bring-up with traces one of those that there are, for as long as it runs."""
    graph.BRINGUPS[BRINGUP] = _TRACED
    try:
        yield
    finally:
        del graph.BRINGUPS[BRINGUP]


def _overrides(setup: Setup) -> dict[str, dict[str, Any]]:
    sizes = {name: list(setup.size or (0, 0)) for name in ("camera_static_size", "camera_gripper_size")}
    return {
        "policy": {"policy": setup.policy, "default_max_steps": 1_000_000, **sizes, **setup.overrides},
        "safety": {"arm_on_start": True, "gripper_output": "float64"},
    }


@dataclass
class _Span:
    """From when to when counts (monotonic), and what happened beside."""

    from_ns: int
    to_ns: int
    timer_late_ms: list[float]
    cores: dict[str, float]
    interrupted: bool = False


def _measure(stack: Stack, seconds: float, told: Callable[[float], None]) -> _Span:
    _begin(stack)
    machine.tick(WARM_UP_S, RATE_HZ)
    cpu_s, busy_s = stack.cpu_s(), machine.busy_s()
    began = time.monotonic_ns()
    span = _Span(began, began, [], {})
    try:
        while (passed_s := (time.monotonic_ns() - began) / 1e9) < seconds:
            span.timer_late_ms += machine.tick(min(1.0, seconds - passed_s), RATE_HZ).tolist()
            stack.check()
            told((time.monotonic_ns() - began) / 1e9)
    except KeyboardInterrupt:
        span.interrupted = True
    span.to_ns = time.monotonic_ns()
    span_s = (span.to_ns - began) / 1e9
    span.cores = {name: (used - cpu_s[name]) / span_s for name, used in stack.cpu_s().items()}
    span.cores["everything"] = (machine.busy_s() - busy_s) / span_s
    time.sleep(IN_FLIGHT_S)
    return span


def _begin(stack: Stack) -> None:
    """Gives the instruction, again and again until actions come; where none come, what is measured is just that."""
    from deer_msgs.msg import PolicyAction
    from std_msgs.msg import String

    node, came = stack.client.node, []
    publisher = node.create_publisher(String, graph.INSTRUCTION, 10)
    listener = node.create_subscription(PolicyAction, graph.POLICY_ACTION, came.append, 10)
    instruction, told_s = String(data=instructions.validation(pictures.INSTRUCTION_TASK)[0]), -np.inf
    deadline = time.monotonic() + START_TIMEOUT_S
    while not came and time.monotonic() < deadline:
        if publisher.get_subscription_count() and time.monotonic() - told_s > ASK_AGAIN_S:
            publisher.publish(instruction)
            told_s = time.monotonic()
        stack.check()
        time.sleep(0.02)
    node.destroy_subscription(listener)
    node.destroy_publisher(publisher)
