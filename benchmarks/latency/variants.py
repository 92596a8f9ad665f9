"""What is measured side by side, in turns, so that each stands for itself against the first of its group."""

from __future__ import annotations

from latency.driver_process import ELEMENT_WISE
from latency.session import Setup

LARGE = (480, 640)
GROUPS: dict[str, dict[str, Setup]] = {
    "480 x 640, no model": {
        "as it is (UDP on loopback)": Setup(size=LARGE),
        "shared memory": Setup(size=LARGE, shared_memory=True),
        "images assigned as lists": Setup(size=LARGE, environment={ELEMENT_WISE: "1"}),
    },
    "200 x 200, no model": {
        "as it is (UDP on loopback)": Setup(),
        "shared memory": Setup(shared_memory=True),
    },
    "200 x 200, `deer-nano`": {
        "1 thread (as it is)": Setup("deer-nano"),
        "2 threads": Setup("deer-nano", overrides={"threads": 2}),
    },
}
ROUNDS = 3
