"""Qualities of service: what a recorder asks for, given what publishers offer, and how a bag tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclpy.duration import Duration
    from rclpy.qos import QoSProfile

QUEUE = 500
"""Messages of a topic that may wait while a chunk is written; large, since a recorder shall lose nothing."""
BULKY_QUEUE = 60
"""The same for messages that are large themselves: two seconds of a camera."""
BULKY = {f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "PointCloud2")}


def request(kind: str, offered: Sequence[QoSProfile]) -> QoSProfile:
    """The strictest quality that all publishers of a topic offer: reliable and latched only if every one of them is."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    reliable = all(quality.reliability == ReliabilityPolicy.RELIABLE for quality in offered)
    latched = all(quality.durability == DurabilityPolicy.TRANSIENT_LOCAL for quality in offered)
    return QoSProfile(
        depth=BULKY_QUEUE if kind in BULKY else QUEUE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def described(offered: Sequence[QoSProfile]) -> list[dict[str, Any]]:
    """The qualities as rosbag2 (version 9 of its metadata) writes them, each kind once."""
    found: list[dict[str, Any]] = []
    for quality in offered:
        entry = {
            "history": _name(quality.history),
            "depth": quality.depth,
            "reliability": _name(quality.reliability),
            "durability": _name(quality.durability),
            "deadline": _duration(quality.deadline),
            "lifespan": _duration(quality.lifespan),
            "liveliness": _name(quality.liveliness),
            "liveliness_lease_duration": _duration(quality.liveliness_lease_duration),
            "avoid_ros_namespace_conventions": quality.avoid_ros_namespace_conventions,
        }
        if entry not in found:
            found.append(entry)
    return found


def as_text(entries: Sequence[dict[str, Any]]) -> str:
    """YAML text of what `described` gives."""
    import yaml

    return yaml.safe_dump(list(entries), sort_keys=False)


def _name(policy: Any) -> str:
    return str(policy.name).lower()


def _duration(duration: Duration) -> dict[str, int]:
    seconds, rest = divmod(duration.nanoseconds, 1_000_000_000)
    return {"sec": seconds, "nsec": rest}
