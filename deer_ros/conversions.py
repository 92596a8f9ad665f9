"""Between ROS 2 messages and the values of `deer_policies.interfaces`; numpy alone, without cv_bridge."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ExitReport

if TYPE_CHECKING:
    from builtin_interfaces.msg import Duration, Time
    from deer_msgs.msg import ExitReport as ExitReportMessage
    from sensor_msgs.msg import Image, JointState

ENCODINGS: dict[str, tuple[int, ...]] = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2, 3),
    "bgra8": (2, 1, 0, 3),
    "mono8": (0, 0, 0),
}
"""For each image encoding that is read, where red, green and blue (and alpha, which is dropped) are."""
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def image_to_rgb(message: Image) -> np.ndarray:
    """The image as (rows, columns, 3) uint8 RGB; an rgb8 image without row padding is a view of the message's data.

    Raises:
        ConfigError: if the encoding is not one of `ENCODINGS`, or sizes and data do not fit together.
    """
    if message.encoding not in ENCODINGS:
        raise ConfigError(
            f"image encoding {message.encoding[:40]!r} can't be read; set the camera to one of {', '.join(ENCODINGS)}"
        )
    channels = _CHANNELS[message.encoding]
    rows, columns, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    if rows < 1 or columns < 1 or step < columns * channels or data.size != rows * step:
        raise ConfigError(
            f"image of {rows} rows and {columns} columns in {message.encoding} with rows of {step} bytes has "
            f"{data.size} bytes; it needs rows of at least {columns * channels} and {rows * step} in all"
        )
    pixels = data.reshape(rows, step)[:, : columns * channels].reshape(rows, columns, channels)
    return pixels if message.encoding == "rgb8" else pixels[:, :, list(ENCODINGS[message.encoding][:3])]


def rgb_to_image(image: np.ndarray, stamp: Time, frame_id: str) -> Image:
    """An rgb8 message of (rows, columns, 3) uint8 pixels.

    The data goes in as one `array.array`, which the message takes as it is; anything else is checked byte by byte.
    """
    from sensor_msgs.msg import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(f"image has shape {image.shape} and dtype {image.dtype}; it must be (rows, columns, 3) uint8")
    message = Image(height=image.shape[0], width=image.shape[1], encoding="rgb8", step=image.shape[1] * 3)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image).data)
    message.data = data
    return message


def joint_speeds(message: JointState, names: Sequence[str]) -> np.ndarray | None:
    """Speeds (len(names),) float64 of the named joints, in that order; None if the driver does not tell them."""
    if len(message.velocity) != len(message.name):
        return None
    speeds = dict(zip(message.name, message.velocity, strict=True))
    return np.array([speeds.get(name, 0.0) for name in names], dtype=np.float64)


def joint_positions(message: JointState, names: Sequence[str]) -> np.ndarray:
    """Positions (len(names),) float64 of the named joints, in that order.

    Raises:
        ConfigError: if a joint is missing or a position is not finite.
    """
    positions = dict(zip(message.name, message.position, strict=False))
    if missing := [name for name in names if name not in positions]:
        raise ConfigError(f"joint state lacks {', '.join(missing)} and has {', '.join(message.name) or 'no joints'}")
    values = np.array([positions[name] for name in names], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(f"joint state holds positions that are not finite: {values.tolist()}")
    return values


def stamp_to_s(stamp: Time) -> float:
    """Seconds of a stamp."""
    return float(stamp.sec + stamp.nanosec * 1e-9)


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp, exact."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> Time:
    """The stamp of a whole number of nanoseconds."""
    from builtin_interfaces.msg import Time

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def seconds_to_duration(seconds: float) -> Duration:
    """The duration of a number of seconds, to the nanosecond."""
    from builtin_interfaces.msg import Duration

    whole, rest = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(sec=whole, nanosec=rest)


def exit_report_to_message(report: ExitReport) -> ExitReportMessage:
    """The message without header, step and budget, which the report does not know."""
    from deer_msgs.msg import ExitReport as ExitReportMessage

    return ExitReportMessage(
        exit_index=report.exit_index,
        exit_layer=report.exit_layer,
        exit_count=len(report.thresholds),
        distances=list(report.distances),
        thresholds=list(report.thresholds),
        llm_gmac=report.llm_gmac,
        total_gmac=report.total_gmac,
        full_llm_gmac=report.full_llm_gmac,
        full_total_gmac=report.full_total_gmac,
        latency_ms=report.latency_ms,
    )


def exit_report_from_message(message: ExitReportMessage) -> ExitReport:
    """The policy's report out of the message."""
    return ExitReport(
        exit_index=int(message.exit_index),
        exit_layer=int(message.exit_layer),
        distances=tuple(float(value) for value in message.distances),
        thresholds=tuple(float(value) for value in message.thresholds),
        llm_gmac=float(message.llm_gmac),
        total_gmac=float(message.total_gmac),
        full_llm_gmac=float(message.full_llm_gmac),
        full_total_gmac=float(message.full_total_gmac),
        latency_ms=float(message.latency_ms),
    )
