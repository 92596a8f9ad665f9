"""What is measured side by side, in turns, so that each stands for itself against the first of its group."""

from __future__ import annotations

from latency.driver_process import ELEMENT_WISE
from latency.session import Setup

LARGE = (480, 640)
GROUPS: dict[str, dict[str, Setup]] = {
    "480 x 640, no model": {
        "as it is": Setup(size=LARGE),
        "Fast DDS without the profile": Setup(size=LARGE, profile=False),
        "UDP alone": Setup(size=LARGE, profile=False, environment={"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}),
        "images assigned as lists": Setup(size=LARGE, environment={ELEMENT_WISE: "1"}),
    },
    "200 x 200, no model": {
        "as it is": Setup(),
        "Fast DDS without the profile": Setup(profile=False),
        "UDP alone": Setup(profile=False, environment={"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}),
    },
    "200 x 200, `deer-nano`": {
        "2 threads (as it is)": Setup("deer-nano"),
        "1 thread": Setup("deer-nano", overrides={"threads": 1}),
    },
}
ROUNDS = 3
