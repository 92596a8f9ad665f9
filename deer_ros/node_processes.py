"""The processes of a bring-up: started with their parameters, started anew when they end, and stopped for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deer_ros.graph import NodeDescription

STOP_TIMEOUT_S = 4.0
"""A process that is still there this long after SIGINT is killed."""
RESPAWNS, RESPAWN_WINDOW_S = 3, 60.0
"""A node that ends more often than this within this time has a fault that starting it again does not mend."""


class NodeProcesses:
    """One process for each node.

    Args:
        parameters: ROS 2 parameter file of all.
        overrides: parameters that differ from the file, by node name.
        environment: of all.
        log_folder: takes their output, one file each; None leaves it on this process' output.
    """

    def __init__(
        self,
        parameters: Path,
        overrides: Mapping[str, Mapping[str, Any]],
        environment: Mapping[str, str],
        log_folder: Path | None,
    ) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._parameters = parameters
        self._overrides = overrides
        self._environment = dict(environment)
        self._log_folder = log_folder
        self._folder = tempfile.TemporaryDirectory(prefix="deer_stack_")
        self._commands: dict[str, list[str]] = {}
        self._starts_s: dict[str, deque[float]] = {}

    def start(self, node: NodeDescription, arguments: Sequence[str] = (), module: str = "") -> None:
        """Starts a node, with ROS arguments of its own; `module` runs it instead of its own module."""
        command = [sys.executable, "-m", module or node.module, "--ros-args"]
        command += ["--params-file", str(self._parameters), *arguments]
        if overrides := self._overrides.get(node.name):
            command += ["--params-file", str(self._write_overrides(node.name, overrides))]
        self._commands[node.name] = command
        self._starts_s[node.name] = deque(maxlen=RESPAWNS + 1)
        self._spawn(node.name)

    def restart(self, name: str) -> bool:
        """Starts a node that has ended once more; False if it has ended too often lately."""
        starts_s = self._starts_s[name]
        if len(starts_s) > RESPAWNS and time.monotonic() - starts_s[0] < RESPAWN_WINDOW_S:
            return False
        self._spawn(name)
        return True

    def ended(self, name: str) -> str:
        """How a process has ended and its last words, or nothing if it runs."""
        status = self.running[name].poll()
        if status is None:
            return ""
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"node {name} {how}{self.last_words(name) if status > 0 else ''}"

    def last_words(self, name: str) -> str:
        """The last line of the node's log, if it has one, to be put behind a message."""
        if self._log_folder is None or not (path := self._log_folder / f"{name}.log").is_file():
            return ""
        lines = path.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each process has taken so far; of those that run."""
        return {name: cpu_s(process.pid) for name, process in self.running.items() if process.poll() is None}

    def stop(self) -> None:
        """Stops every process: politely, then, after `STOP_TIMEOUT_S`, for good."""
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def close(self) -> None:
        """Forgets the files that it wrote."""
        self._folder.cleanup()

    def _spawn(self, name: str) -> None:
        log = None
        if self._log_folder is not None:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            mode = "ab" if self._starts_s[name] else "wb"
            log = open(self._log_folder / f"{name}.log", mode)  # noqa: SIM115 (the child keeps it)
        self._starts_s[name].append(time.monotonic())
        try:
            self.running[name] = subprocess.Popen(
                self._commands[name],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                start_new_session=True,
            )
        finally:
            if log is not None:
                log.close()

    def _write_overrides(self, name: str, overrides: Mapping[str, Any]) -> Path:
        import yaml

        path = Path(self._folder.name) / f"{name}.yaml"
        path.write_text(yaml.safe_dump({f"/**/{name}": {"ros__parameters": dict(overrides)}}))
        return path


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken so far, user and system, all threads; from Linux's /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
