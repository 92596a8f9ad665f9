"""Finds the images of given frames in a recording, in one pass that keeps no more of them than it has to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deer_ros.recording.reading import Recording
from deer_ros.robot_frame import GRIPPER, STATIC, TOPICS


@dataclass(frozen=True)
class Wanted:
    """A frame's images by their stamps in ns."""

    static_ns: int
    gripper_ns: int

    @property
    def keys(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Channel and stamp of both."""
        return (STATIC, self.static_ns), (GRIPPER, self.gripper_ns)


def find_images(recording: Recording, namespace: str, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Any, Any]]:
    """Gives, in their order, the place of each wanted frame and its two image messages.

    All of them must be in the recording, and roughly in the order in which they are wanted: what comes early waits.

    Args:
        recording: to read.
        namespace: of the topics.
        wanted: frames.
    """
    uses = Counter(key for frame in wanted for key in frame.keys)
    channels = {f"{namespace}/{TOPICS[channel]}": channel for channel in (STATIC, GRIPPER)}
    waiting: dict[tuple[str, int], Any] = {}
    place = 0
    for message in recording.messages():
        if place == len(wanted):
            return
        key = (channels.get(message.topic, ""), message.stamp_ns) if message.topic in channels else ("", 0)
        if uses[key] == 0 or key in waiting:
            continue
        waiting[key] = _writable(message.content)
        while place < len(wanted) and all(key in waiting for key in wanted[place].keys):
            static, gripper = (waiting[key] for key in wanted[place].keys)
            for key in wanted[place].keys:
                uses[key] -= 1
                if uses[key] == 0:
                    del waiting[key]
            yield place, static, gripper
            place += 1


def _writable(image: Any) -> Any:
    """An image message whose data may be changed, as those that come over ROS; PyTorch warns of others."""
    image.data = bytearray(image.data)
    return image
