"""What one check of the machine found, and the probe that runs risky code in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum

from deer_policies.errors import ConfigError
from deer_ros import network

PROBE_TIMEOUT_S = 60.0


class Status(StrEnum):
    """How a finding bears on the main job, following an instruction in simulation."""

    OK = "ok"
    NOTE = "note"
    """Works, but could be better or is only needed for other jobs."""
    BROKEN = "broken"
    """The main job can't run."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: what was looked at.
        status: see `Status`.
        detail: what is there.
        remedy: what to do about it; empty only where the status is ok.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status is not Status.OK and not self.remedy:
            raise ConfigError(
                f"finding {self.name!r} is {self.status.value} and names no remedy; say what to do about it"
            )


@dataclass(frozen=True)
class ProbeResult:
    """How a probe ended: its output, or in words why there is none."""

    succeeded: bool
    output: str


def probe(code: str, timeout_s: float = PROBE_TIMEOUT_S) -> ProbeResult:
    """Runs Python code in a fresh interpreter, since a broken driver or library can take the whole process down.

    Returns:
        The standard output if it ended with status 0; else the last line of its error output, or the signal's number.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=network.environment(network.LOOPBACK, os.environ),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ProbeResult(False, f"no answer within {timeout_s:g} s")
    if done.returncode == 0:
        return ProbeResult(True, done.stdout.strip())
    if done.returncode < 0:
        return ProbeResult(False, f"crashed with signal {-done.returncode}")
    lines = done.stderr.strip().splitlines()
    return ProbeResult(False, lines[-1] if lines else f"ended with status {done.returncode}")
