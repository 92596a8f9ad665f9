"""What is wrong with a simulated arm's cameras, joint states and command line; by default nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.imperfect_link import LinkQuality

ENCODINGS = ("rgb8", "bgr8", "mono8", "32FC1")
"""What a camera can be made to send; the policy reads all but the last."""


def _number(low: float, high: float, about: str, default: float = 0.0) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "about": about})


def _flag(about: str) -> Any:
    return field(default=False, metadata={"about": about})


@dataclass(frozen=True)
class Imperfections:
    """Each is a parameter of the simulator node, where its description and range are told (`fields` has them)."""

    camera_latency_s: float = _number(0.0, 10.0, "images are sent so long after their stamp")
    camera_jitter_s: float = _number(0.0, 10.0, "images are late by up to so much more, at random")
    camera_dropout: float = _number(0.0, 1.0, "probability that an image is lost")
    camera_stamp_offset_s: float = _number(-1e5, 1e5, "added to the stamps of images: a camera with a wrong clock")
    camera_frozen: bool = _flag("cameras go on sending the pixels of one picture, with new stamps")
    camera_repeats: bool = _flag("cameras go on sending one message, with its stamp")
    camera_encoding: str = field(default="rgb8", metadata={"about": "encoding of images", "choices": ENCODINGS})
    camera_scale: float = _number(0.05, 4.0, "size of images, as a multiple of what the camera says", 1.0)
    joint_latency_s: float = _number(0.0, 10.0, "joint states are sent so long after their stamp")
    joint_jitter_s: float = _number(0.0, 10.0, "joint states are late by up to so much more, at random")
    joint_dropout: float = _number(0.0, 1.0, "probability that a joint state is lost")
    joint_states_frozen: bool = _flag("joint states go on telling one position, with new stamps")
    nan_joints: bool = _flag("positions in joint states are not a number")
    command_latency_s: float = _number(0.0, 10.0, "commands are heard so long after they came in")
    command_jitter_s: float = _number(0.0, 10.0, "commands are heard late by up to so much more, at random")
    command_dropout: float = _number(0.0, 1.0, "probability that a command is lost")

    def __post_init__(self) -> None:
        for item in fields(self):
            value, about = getattr(self, item.name), item.metadata
            if "low" in about and not about["low"] <= value <= about["high"]:
                raise ConfigError(f"{item.name} is {value}; it must be in {about['low']:g}..{about['high']:g}")
            if "choices" in about and value not in about["choices"]:
                raise ConfigError(f"{item.name} is {value!r}; it must be one of {', '.join(about['choices'])}")

    @property
    def present(self) -> list[str]:
        """Names of those that are not as they are by default."""
        return [item.name for item in fields(self) if getattr(self, item.name) != item.default]

    @property
    def camera(self) -> LinkQuality:
        """Of the line on which each camera's messages come."""
        return LinkQuality(self.camera_latency_s, self.camera_jitter_s, self.camera_dropout)

    @property
    def joints(self) -> LinkQuality:
        """Of the line on which joint states come."""
        return LinkQuality(self.joint_latency_s, self.joint_jitter_s, self.joint_dropout)

    @property
    def commands(self) -> LinkQuality:
        """Of the line on which commands reach the arm."""
        return LinkQuality(self.command_latency_s, self.command_jitter_s, self.command_dropout)


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    """The image (rows, columns, ...) with each side `factor` times as long, at least one pixel: nearest neighbours."""
    rows, columns = (max(1, round(size * factor)) for size in image.shape[:2])
    row = np.arange(rows) * image.shape[0] // rows
    column = np.arange(columns) * image.shape[1] // columns
    return image[row[:, None], column[None, :]]


def encoded(image: np.ndarray, encoding: str) -> np.ndarray:
    """The pixels (rows, columns, 3) uint8 RGB as `encoding` lays them out: (rows, bytes of a row) uint8."""
    rows = image.shape[0]
    if encoding == "bgr8":
        image = image[:, :, ::-1]
    elif encoding != "rgb8":
        grey = image @ np.array((0.299, 0.587, 0.114))
        image = (grey / 255).astype(np.float32) if encoding == "32FC1" else np.rint(grey).astype(np.uint8)
    return np.ascontiguousarray(image).view(np.uint8).reshape(rows, -1)
