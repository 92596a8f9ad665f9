"""What the driver plays: an expert's episode at the play table, in the size of the cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deer_policies.interfaces import Observation

COUNT = 45
INSTRUCTION_TASK = "open_drawer"


def play(seed: int) -> list[Observation]:
    """The first frames of the expert doing `INSTRUCTION_TASK`."""
    from expert_observations import record

    return record("D", [INSTRUCTION_TASK], 1, seed, 1)[0][:COUNT]


def write(path: Path, observations: list[Observation], size: tuple[int, int] | None) -> None:
    """Writes images of (rows, columns), or as they are, and robot states for the driver."""
    static, gripper = (
        np.stack(
            [
                enlarged(getattr(observation, name), size) if size else getattr(observation, name)
                for observation in observations
            ]
        )
        for name in ("rgb_static", "rgb_gripper")
    )
    robot = np.stack([observation.proprioception for observation in observations])
    np.savez(path, static=static, gripper=gripper, robot=robot)


def enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A square image as the middle of a larger one; what is beside it mirrors it."""
    from PIL import Image

    side = min(size)
    middle = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    before = [(extent - side) // 2 for extent in size]
    pads = [(start, extent - side - start) for start, extent in zip(before, size, strict=True)]
    return np.pad(middle, (*pads, (0, 0)), mode="symmetric")
