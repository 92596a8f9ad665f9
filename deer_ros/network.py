"""How far ROS traffic reaches: by default nothing is bound beyond loopback, and a process that is ends at once.

`ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST` keeps discovery on the machine, but Fast DDS still binds 0.0.0.0: rmw_fastrtps
adds a UDP transport of its own that no profile can narrow. So the loopback network is a profile, `config/loopback.xml`,
that does the same on sockets of 127.0.0.1, with the range left to the profile. Where that can't be, LOCALHOST remains.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.errors import StackError

LOOPBACK, SUBNET = "loopback", "subnet"
NETWORKS = (LOOPBACK, SUBNET)
NETWORK_DESCRIPTION = "who may reach the nodes: loopback (this machine only) or subnet (every machine on the network)"
PROFILE = graph.CONFIG_FOLDER / "loopback.xml"
RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS 3 reads the first, Fast DDS 2 the second."""
FAST_DDS_2 = ("humble", "iron", "jazzy")
"""ROS_DISTRO of the ROS 2 releases that have Fast DDS 2."""
RECEIVE_LIMIT = Path("/proc/sys/net/core/rmem_max")
"""Greatest receive buffer, in bytes, that a process may ask for; the kernel holds twice as many, overhead included."""
CONFINED = "DEER_LOOPBACK_ONLY"
"""Environment variable: if '1', a node ends rather than run with a socket beyond loopback."""


@dataclass(frozen=True)
class BoundSocket:
    """A TCP or UDP socket that is bound: protocol ('udp', 'tcp6', ...), address and port."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.protocol} {self.address}:{self.port}"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.address.startswith(("127.", "::ffff:127.")) or self.address == "::1"


def checked_network(name: str) -> str:
    """The name. Raises ConfigError if there is no such network."""
    if name not in NETWORKS:
        raise ConfigError(f"network is {name!r}; it must be one of {', '.join(NETWORKS)}")
    return name


def environment(network: str, given: Mapping[str, str]) -> dict[str, str]:
    """The environment `given`, changed so that processes started with it have that network.

    A profile file of the user's own and another middleware than Fast DDS are respected; the loopback network is then
    discovery range LOCALHOST.
    """
    ours = {name for name in PROFILE_VARIABLES if given.get(name) == str(PROFILE)}
    kept = {name: value for name, value in given.items() if name not in {*ours, CONFINED, RANGE}}
    if checked_network(network) == SUBNET:
        return {**kept, RANGE: "SUBNET"}
    fast_dds = given.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") == "rmw_fastrtps_cpp"
    if not fast_dds or any(name in kept for name in PROFILE_VARIABLES) or not PROFILE.is_file():
        return {**kept, RANGE: "LOCALHOST"}
    variable = PROFILE_VARIABLES[given.get("ROS_DISTRO") in FAST_DDS_2]
    return {**kept, RANGE: "SYSTEM_DEFAULT", variable: str(PROFILE), CONFINED: "1"}


def enter(network: str | None) -> None:
    """Gives this process a network, before it makes its first node.

    None is loopback, unless the environment names a discovery range: that is somebody's wish. Fast DDS reads its
    profile once, so a process that has loaded rclpy already gets LOCALHOST, whose sockets are bound wider.
    """
    if network is None:
        if RANGE in os.environ:
            return
        network = LOOPBACK
    wanted = environment(network, os.environ)
    if wanted.get(CONFINED) == "1" and os.environ.get(CONFINED) != "1" and "rclpy" in sys.modules:
        os.environ[RANGE] = "LOCALHOST"
        return
    for name in {*os.environ} - {*wanted}:
        del os.environ[name]
    os.environ.update(wanted)


def refuse_wide_sockets() -> None:
    """Raises StackError if this process is to keep to loopback and has a socket beyond it."""
    if os.environ.get(CONFINED) != "1":
        return
    if wide := [str(bound) for bound in bound_sockets(os.getpid()) if not bound.on_loopback]:
        raise StackError(
            f"this process listens beyond loopback ({', '.join(wide)}) although its network is loopback; "
            f"the middleware does not follow {PROFILE}: set {RANGE}=LOCALHOST and start again without {CONFINED}"
        )


def receive_buffer_trouble(frame_bytes: int) -> str:
    """In words, why images are lost on the loopback network, and the remedy; nothing if they are not.

    Datagrams of a whole frame come at once. Measured with two images of 480 x 640 at 30 Hz: with a limit of their size
    none of 600 frames was lost, with half of it 107, with the kernel's default 501.

    Args:
        frame_bytes: of all images that come together.
    """
    if os.environ.get(CONFINED) != "1" or not RECEIVE_LIMIT.is_file():
        return ""
    limit = int(RECEIVE_LIMIT.read_text())
    if limit >= frame_bytes:
        return ""
    return (
        f"the images of a frame have {frame_bytes} bytes and a socket's buffer only {limit}: many will get lost; "
        f"run: sudo sysctl -w net.core.rmem_max={frame_bytes}"
    )


def bound_sockets(pid: int) -> list[BoundSocket]:
    """UDP sockets and listening TCP sockets of a process, from /proc; none where there is no /proc."""
    inodes = set(_socket_inodes(Path("/proc") / str(pid) / "fd"))
    found = []
    for protocol in ("udp", "udp6", "tcp", "tcp6"):
        table = Path("/proc") / str(pid) / "net" / protocol
        for line in table.read_text().splitlines()[1:] if table.is_file() else ():
            local, state, inode = (line.split()[column] for column in (1, 3, 9))
            if inode in inodes and (protocol.startswith("udp") or state == _LISTEN):
                address, port = local.split(":")
                found.append(BoundSocket(protocol, _address(address), int(port, 16)))
    return found


_LISTEN = "0A"
"""State of a listening TCP socket in /proc/net/tcp."""


def _socket_inodes(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _address(text: str) -> str:
    """/proc/net writes addresses as hexadecimal words of 32 bits in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
