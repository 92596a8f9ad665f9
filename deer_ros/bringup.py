"""Starts the nodes of a bring-up as processes where `ros2 launch` is not installed, and stops them all."""

from __future__ import annotations

import logging
import os
import random
import socket
import subprocess
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
from deer_ros.node_processes import NodeProcesses
from deer_ros.process import STOP_WITH_STDIN
from deer_ros.security import enforcing

log = logging.getLogger(__name__)

WATCH_PERIOD_S = 0.05
STUCK_S = 10.0
"""The supervisor is to come by twenty times a second, and may be late on a busy machine."""
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
        respawn: whether nodes that can be are started again when their process ends.
        variables: of the nodes' environment, beside those that it sets itself.
        modules: Python modules that run nodes instead of their own, by node name.
        leave_out: names of nodes in whose place something else is there.
        network: who may reach the nodes, one of `deer_ros.network.NETWORKS`.
        security: keystore of `deer security`, with which SROS 2 is enforced; None leaves it to the environment.
    """

    bringup: str = "simulation"
    parameter_file: Path | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    domain_id: int | None = None
    log_folder: Path | None = None
    respawn: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    network: str = network.LOOPBACK
    security: Path | None = None

    def __post_init__(self) -> None:
        if self.bringup not in graph.BRINGUPS:
            raise ConfigError(f"bring-up {self.bringup!r} is unknown; there are {', '.join(graph.BRINGUPS)}")
        names = {node.name for node in self.nodes}
        if unknown := sorted({*self.overrides, *self.modules} - names):
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
        return tuple(node for node in graph.BRINGUPS[self.bringup].nodes if node.name not in self.leave_out)

    @property
    def parameters(self) -> Path:
        """The parameter file in use."""
        return self.parameter_file or graph.CONFIG_FOLDER / f"{self.bringup}.yaml"

    def enclave(self, name: str) -> list[str]:
        """ROS arguments that put a node or the client into its enclave. Raises ConfigError if the keystore lacks it."""
        return [] if self.security is None else enforcing.arguments(self.security, name)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The environment `given` with the variables, the network and the security of this stack."""
        secured = {} if self.security is None else enforcing.environment(self.security)
        return {**network.environment(self.network, {**given, **self.variables}), **secured}


class Stack:
    """The running nodes of a bring-up; `with Stack(StackConfig()) as stack: stack.client.follow(...)`.

    If a vital node ends (safety, simulator) or the safety node falls silent, all others are stopped at once, and
    `check` says so.
    """

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.domain_id = free_domain_id() if config.domain_id is None else config.domain_id
        self.failure: str | None = None
        self._client: StackClient | None = None
        self._processes = NodeProcesses(config.parameters, config.overrides, self.environment, config.log_folder)
        self._up = threading.Event()
        self._broken = ""
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
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """The nodes' processes, by name."""
        return self._processes.running

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each node's process has taken so far."""
        return self._processes.cpu_s()

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the nodes: the stack's domain, network and security, an end with this process."""
        own = {"ROS_DOMAIN_ID": str(self.domain_id), "PYTHONUNBUFFERED": "1", STOP_WITH_STDIN: "1"}
        return {**self.config.environment(os.environ), **own}

    def start(self, timeout_s: float = 120.0) -> None:
        """Starts the processes and brings the managed nodes to active, in the order of the graph."""
        for node in self.config.nodes:
            self._processes.start(node, self.config.enclave(node.name), self.config.modules.get(node.name, ""))
        self._client = self._make_client()
        # Only now: it imports rclpy, and before that this process gets its network.
        from deer_ros.supervision import SupervisionSettings, Supervisor

        settings = SupervisionSettings(tuple(node.name for node in self.config.nodes if node.managed), timeout_s)
        self._supervisor = Supervisor(self._client.node, settings, self._up.set, self._give_up)
        self._watcher.start()
        while not self._up.wait(WATCH_PERIOD_S):
            self.check()
        if "policy" in self.processes:
            self._client.wait_ready(timeout_s, simulator="simulator" in self.processes)

    def check(self) -> None:
        """Raises StackError if the stack has failed, or a process has ended that is not started again."""
        if self.failure is not None:
            raise StackError(self.failure)
        for node in self.config.nodes:
            if not self._respawns(node) and (ended := self._processes.ended(node.name)) and not self._stopping.is_set():
                raise StackError(ended)

    def wait(self) -> None:
        """Waits until `check` raises; Ctrl-C gets through."""
        while True:
            self.check()
            time.sleep(WATCH_PERIOD_S)

    def stop(self) -> None:
        """Stops every process."""
        self._stopping.set()
        if self._client is not None:
            self._client.close()
            self._client = None
        self._processes.stop()
        self._processes.close()

    def _make_client(self) -> StackClient:
        """A client with the network and the security of the nodes."""
        enclave = ["--ros-args", *self.config.enclave(endpoints.OPERATOR)] if self.config.security else None
        with enforcing.entered(self.config.security):
            return StackClient(self.domain_id, self.check, self.config.network, enclave)

    def _give_up(self, reason: str, name: str) -> None:
        """On the client's thread: what the supervisor could not mend."""
        self._broken = reason + self._processes.last_words(name)

    def _respawns(self, node: graph.NodeDescription) -> bool:
        return self.config.respawn and node.respawn

    def _watch(self) -> None:
        """Stops everything as soon as a vital node ends or the supervisor gives up; starts others again if asked to."""
        while not self._stopping.wait(WATCH_PERIOD_S):
            lost = next(filter(None, map(self._lost, self.config.nodes)), "")
            if reason := self._broken or lost or self._stuck():
                self.failure = f"{reason}; everything was stopped"
                self._processes.stop()
                return

    def _stuck(self) -> str:
        """Whether this process' own ROS side hangs, in words: a process that is halted within the middleware's shared
        memory can block all others."""
        if time.monotonic() - self._supervisor.ticked_s < STUCK_S:
            return ""
        return f"ROS 2 hangs: nothing was heard or sent for {STUCK_S:g} s"

    def _lost(self, node: graph.NodeDescription) -> str:
        """Why everything must end because of this node, or nothing."""
        ended = self._processes.ended(node.name)
        if ended and self._respawns(node):
            log.warning("%s; starting it again", ended)
            return "" if self._processes.restart(node.name) else f"{ended} again and again"
        return ended if node.vital else ""


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
