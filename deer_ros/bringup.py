"""Starts the nodes of a bring-up as processes where `ros2 launch` is not installed, and stops them all."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_ros import endpoints, graph, network
from deer_ros.client import StackClient
from deer_ros.errors import StackError
from deer_ros.process import STOP_WITH_STDIN
from deer_ros.security import enforcing

STOP_TIMEOUT_S = 4.0
"""A process that is still there this long after SIGINT is killed."""
WATCH_PERIOD_S = 0.05
MAX_DOMAIN_ID = 101
"""Above it, DDS ports meet the ephemeral ports of Linux."""


@dataclass(frozen=True)
class StackConfig:
    """What to start.

    Attributes:
        bringup: one of `deer_ros.graph.BRINGUPS`.
        parameter_file: ROS 2 parameter file; None takes the packaged one of the bring-up.
        overrides: parameters that differ from the file, by node name.
        domain_id: ROS domain; None draws a free one.
        log_folder: takes the nodes' output, one file each; None leaves it on this process' output.
        managed_up: whether managed nodes are configured and activated.
        network: who may reach the nodes, one of `deer_ros.network.NETWORKS`.
        security: keystore of `deer security`, with which SROS 2 is enforced; None leaves it to the environment.
    """

    bringup: str = "simulation"
    parameter_file: Path | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    domain_id: int | None = None
    log_folder: Path | None = None
    managed_up: bool = True
    network: str = network.LOOPBACK
    security: Path | None = None

    def __post_init__(self) -> None:
        if self.bringup not in graph.BRINGUPS:
            raise ConfigError(f"bring-up {self.bringup!r} is unknown; there are {', '.join(graph.BRINGUPS)}")
        names = {node.name for node in self.nodes}
        if unknown := sorted(set(self.overrides) - names):
            raise ConfigError(f"no node {', '.join(unknown)} in bring-up {self.bringup}; there are {sorted(names)}")
        if self.domain_id is not None and not 0 <= self.domain_id <= MAX_DOMAIN_ID:
            raise ConfigError(f"domain_id is {self.domain_id}; it must be in 0..{MAX_DOMAIN_ID}")
        if not self.parameters.is_file():
            raise ConfigError(f"there is no parameter file {self.parameters}")
        network.checked_network(self.network)
        for name in (*names, endpoints.OPERATOR):
            self.enclave(name)

    @property
    def nodes(self) -> tuple[graph.NodeDescription, ...]:
        """The nodes to start, in order."""
        return graph.BRINGUPS[self.bringup].nodes

    @property
    def parameters(self) -> Path:
        """The parameter file in use."""
        return self.parameter_file or graph.CONFIG_FOLDER / f"{self.bringup}.yaml"

    def enclave(self, name: str) -> list[str]:
        """ROS arguments that put a node or the client into its enclave. Raises ConfigError if the keystore lacks it."""
        return [] if self.security is None else enforcing.arguments(self.security, name)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The environment `given` with the network and the security of this stack."""
        secured = {} if self.security is None else enforcing.environment(self.security)
        return {**network.environment(self.network, given), **secured}


class Stack:
    """The running processes of a bring-up; `with Stack(StackConfig()) as stack: stack.client.follow(...)`.

    If a vital node ends (safety, simulator), all others are stopped at once, and `check` says so.
    """

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.domain_id = free_domain_id() if config.domain_id is None else config.domain_id
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.failure: str | None = None
        self._client: StackClient | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="deer_stack_")
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="stack_watch", daemon=True)

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def client(self) -> StackClient:
        """A client on the stack's domain."""
        if self._client is None:
            raise StackError("the stack is not started; use it in a `with` statement")
        return self._client

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the nodes: the stack's domain, network and security, an end with this process."""
        own = {"ROS_DOMAIN_ID": str(self.domain_id), "PYTHONUNBUFFERED": "1", STOP_WITH_STDIN: "1"}
        return {**self.config.environment(os.environ), **own}

    def start(self, timeout_s: float = 120.0) -> None:
        """Starts the processes and brings the managed nodes to active, in the order of the graph."""
        from lifecycle_msgs.msg import Transition

        for node in self.config.nodes:
            self.processes[node.name] = self._spawn(node)
        self._watcher.start()
        self._client = self._make_client()
        for node in self.config.nodes:
            if node.managed and self.config.managed_up:
                self._await_managed(node.name, timeout_s)
                for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                    try:
                        self._client.change_state(node.name, transition, timeout_s)
                    except StackError as error:
                        raise StackError(f"{error}{self._last_words(node.name)}") from error
        if self.config.managed_up:
            self._client.wait_ready(timeout_s, simulator="simulator" in self.processes)

    def check(self) -> None:
        """Raises StackError if a process has ended."""
        if self.failure is not None:
            raise StackError(self.failure)
        for name, process in self.processes.items():
            if process.poll() is not None and not self._stopping.is_set():
                raise StackError(self._ended(name, process))

    def wait(self) -> None:
        """Waits until a process ends, then raises StackError; Ctrl-C gets through."""
        while True:
            self.check()
            time.sleep(WATCH_PERIOD_S)

    def stop(self) -> None:
        """Stops every process: politely, then, after `STOP_TIMEOUT_S`, for good."""
        self._stopping.set()
        if self._client is not None:
            self._client.close()
            self._client = None
        self._stop_processes()
        self._folder.cleanup()

    def _make_client(self) -> StackClient:
        """A client with the network and the security of the nodes."""
        enclave = ["--ros-args", *self.config.enclave(endpoints.OPERATOR)] if self.config.security else None
        with enforcing.entered(self.config.security):
            return StackClient(self.domain_id, self.check, self.config.network, enclave)

    def _spawn(self, node: graph.NodeDescription) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", node.module, "--ros-args", "--params-file", str(self.config.parameters)]
        command += self.config.enclave(node.name)
        if overrides := self.config.overrides.get(node.name):
            command += ["--params-file", str(self._write_overrides(node.name, overrides))]
        log = None
        if self.config.log_folder is not None:
            self.config.log_folder.mkdir(parents=True, exist_ok=True)
            log = open(self.config.log_folder / f"{node.name}.log", "wb")  # noqa: SIM115 (the child keeps it)
        try:
            return subprocess.Popen(
                command,
                env=self.environment,
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

    def _await_managed(self, name: str, timeout_s: float) -> None:
        from lifecycle_msgs.srv import GetState

        client: Any = self.client.node.create_client(GetState, f"{name}/get_state")
        deadline = time.monotonic() + timeout_s
        try:
            while not client.service_is_ready():
                self.check()
                if time.monotonic() > deadline:
                    raise StackError(f"node {name} did not come up within {timeout_s:g} s; its log says why")
                time.sleep(WATCH_PERIOD_S)
        finally:
            self.client.node.destroy_client(client)

    def _watch(self) -> None:
        """Stops everything as soon as a vital node ends."""
        vital = [node.name for node in self.config.nodes if node.vital]
        while not self._stopping.wait(WATCH_PERIOD_S):
            for name in vital:
                if self.processes[name].poll() is not None:
                    self.failure = self._ended(name, self.processes[name]) + "; everything was stopped"
                    self._stop_processes()
                    return

    def _ended(self, name: str, process: subprocess.Popen[bytes]) -> str:
        status = process.returncode
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"node {name} {how}{self._last_words(name) if status > 0 else ''}"

    def _last_words(self, name: str) -> str:
        """The last line of the node's log, if it has one, to be put behind a message."""
        if self.config.log_folder is None:
            return ""
        lines = (self.config.log_folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def _stop_processes(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


def free_domain_id() -> int:
    """A ROS domain whose first unicast port nobody on this machine has bound."""
    for domain_id in random.sample(range(1, MAX_DOMAIN_ID + 1), MAX_DOMAIN_ID):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7410 + 250 * domain_id))
            except OSError:
                continue
        return domain_id
    raise StackError(f"every ROS domain in 1..{MAX_DOMAIN_ID} is in use on this machine; stop something first")
