"""Keeps a process from being discovered for a while: what it announces goes through a gate that opens later.

Its Fast DDS profile names the gate as the only one to announce itself to, and gives it a number beyond those that the
others look for by themselves. Ports are those of the RTPS specification (DDSI-RTPS 2.5, 9.6.2).
"""

from __future__ import annotations

import re
import socket
import threading
import time

FIRST_NUMBER, LAST_NUMBER = 99, 119
"""Of participants; others look for the first 64, and a domain's ports end with the last."""
OTHERS = 16
"""Participants that are told once the gate is open."""
POLL_S = 0.1


class AnnouncementGate:
    """Passes datagrams on to the participants of a domain, from a certain time on.

    Args:
        domain_id: ROS domain.
        held_s: announcements are dropped for so long.
        number: of the participant, in FIRST_NUMBER..LAST_NUMBER; another one than of a process that was killed, whose
            port others go on to write to for a while.

    Attributes:
        address: where it listens.
    """

    def __init__(self, domain_id: int, held_s: float, number: int = FIRST_NUMBER) -> None:
        self._number = number
        first = 7410 + 250 * domain_id
        self._others = [("127.0.0.1", first + 2 * at) for at in range(OTHERS)]
        self._opens_s = time.monotonic() + held_s
        self._closed = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(POLL_S)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._thread = threading.Thread(target=self._run, name="announcement_gate", daemon=True)
        self._thread.start()

    def profile(self, text: str) -> str:
        """A Fast DDS profile of the loopback network, changed for who is to be held back."""
        quiet = "<initialAnnouncements><count>0</count></initialAnnouncements>"
        again = "<leaseAnnouncement><nanosec>500000000</nanosec></leaseAnnouncement>"
        host, port = self.address
        peer = f"<udpv4><port>{port}</port><address>{host}</address></udpv4>"
        text = re.sub(r"<initialAnnouncements>.*</initialAnnouncements>", quiet + again, text, flags=re.DOTALL)
        text = re.sub(
            r"<initialPeersList>.*</initialPeersList>",
            f"<initialPeersList><locator>{peer}</locator></initialPeersList>",
            text,
            flags=re.DOTALL,
        )
        return text.replace("<builtin>", f"<participantID>{self._number}</participantID><builtin>", 1)

    def close(self) -> None:
        """Ends it; who is discovered by then stays so."""
        self._closed.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                announcement = self._socket.recv(65536)
            except TimeoutError:
                continue
            if time.monotonic() >= self._opens_s:
                for other in self._others:
                    self._socket.sendto(announcement, other)
