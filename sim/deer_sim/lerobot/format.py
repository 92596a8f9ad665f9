"""Names, paths and features of LeRobot's dataset format, and which of CALVIN's arrays is which feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError

VERSION = "v3.0"
OLDER_VERSION = "v2.1"
RATE_HZ = 30
CHUNK_FILES = 1000
"""Files in a folder."""
DATA_FILE_MIB = 100
VIDEO_FILE_MIB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
TASKS_PATH = "meta/tasks.parquet"
INFO_PATH = "meta/info.json"
STATISTICS_PATH = "meta/stats.json"

CAMERAS = {"rgb_static": "observation.images.static", "rgb_gripper": "observation.images.gripper"}
STATE, ACTION = "observation.state", "action"
KNOWN = {"robot_obs": STATE, "rel_actions": ACTION, **CAMERAS}
"""What policies see and do; every other array NAME of a frame is the feature `calvin.NAME`."""
FRAME = "calvin.frame"
"""CALVIN's number of the frame."""
COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
TASK_INDEX = "task_index"
NAMES: dict[str, list[str]] = {
    "rel_actions": ["x", "y", "z", "roll", "pitch", "yaw", "gripper"],
    "robot_obs": [
        *("x", "y", "z", "roll", "pitch", "yaw", "gripper_width"),
        *(f"joint_{number}" for number in range(1, 8)),
        "gripper_command",
    ],
}


def feature_name(array: str) -> str:
    """LeRobot's name for one of the arrays of a frame."""
    return KNOWN.get(array, f"calvin.{array}")


def exported_arrays(frame: Mapping[str, np.ndarray]) -> list[str]:
    """Arrays of a frame that are exported: camera images and vectors, but no depth or tactile images."""
    return [name for name, value in frame.items() if name in CAMERAS or value.ndim < 2]


def features_of(frame: Mapping[str, np.ndarray], video: bool) -> dict[str, dict[str, Any]]:
    """LeRobot's description of what is exported of a frame such as this one."""
    found: dict[str, dict[str, Any]] = {}
    for name in exported_arrays(frame):
        value = frame[name]
        if name in CAMERAS:
            height, width, channels = value.shape
            found[CAMERAS[name]] = {
                "dtype": "video" if video else "image",
                "shape": [height, width, channels],
                "names": ["height", "width", "channels"],
            }
            if video:
                found[CAMERAS[name]]["info"] = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": RATE_HZ,
                    "video.channels": channels,
                    "has_audio": False,
                }
        else:
            shape = list(value.shape) or [1]
            found[feature_name(name)] = {"dtype": str(value.dtype), "shape": shape, "names": NAMES.get(name)}
    found[FRAME] = {"dtype": "int64", "shape": [1], "names": None}
    for name, kind in {**COUNTERS, TASK_INDEX: "int64"}.items():
        found[name] = {"dtype": kind, "shape": [1], "names": None}
    return found


def require_pyarrow() -> None:
    """Raises ConfigError with the remedy where Parquet files can't be read or written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"LeRobot's format needs PyArrow ({error}); pip install 'deer_ros[lerobot]'") from error
