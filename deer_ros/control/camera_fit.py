"""Fits a camera's images to the size that the policy takes: centre crop to its aspect ratio, then area averaging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import checked_image


@dataclass(frozen=True)
class CameraFit:
    """From the size of a camera's images to the policy's.

    Attributes:
        name: of the camera, for messages.
        camera: (rows, columns) that the camera sends; (0, 0) is the policy's own size.
        policy: (rows, columns) that the policy takes.
    """

    name: str
    camera: tuple[int, int]
    policy: tuple[int, int]

    def __post_init__(self) -> None:
        if self.camera == (0, 0):
            object.__setattr__(self, "camera", self.policy)
        rows, columns = self.camera
        if rows < self.policy[0] or columns < self.policy[1]:
            raise ConfigError(
                f"size of the {self.name} camera is {rows} rows and {columns} columns; it must be at least the "
                f"policy's, {self.policy[0]} and {self.policy[1]}, or 0 and 0 for just that: images are never enlarged"
            )

    @property
    def crop(self) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge, in pixels, of the largest centred part with the policy's aspect ratio."""
        (rows, columns), (to_rows, to_columns) = self.camera, self.policy
        scale = min(rows / to_rows, columns / to_columns)
        left, upper = (columns - to_columns * scale) / 2, (rows - to_rows * scale) / 2
        return max(0.0, left), max(0.0, upper), min(columns, columns - left), min(rows, rows - upper)

    def checked(self, image: np.ndarray) -> np.ndarray:
        """Returns `image` if it is uint8 RGB of the camera's size, and raises ConfigError otherwise."""
        return checked_image("image", image, (*self.camera, 3))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image (rows, columns, 3) uint8 in the policy's size; itself, not a copy, if it has that size already.

        Each pixel of the result is the mean of the area that it covers, so that nothing flickers as edges pass over it.

        Raises:
            ConfigError: if the image does not have the camera's size.
        """
        self.checked(image)
        if self.camera == self.policy:
            return image
        from PIL import Image

        rows, columns = self.camera
        pixels = np.ascontiguousarray(image)
        picture = Image.frombuffer("RGB", (columns, rows), pixels, "raw", "RGB", 0, 1)
        return np.array(picture.resize(self.policy[::-1], Image.Resampling.BOX, box=self.crop))
