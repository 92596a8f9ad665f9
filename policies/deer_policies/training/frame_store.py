"""Frames packed into one file, read by memory map: training reads a window at the speed of the disk, or of memory.

What a policy sees of a frame is made once, at the policy's own image size, by as many processes as there are; a run
that was killed goes on with the blocks that are missing.
"""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np

from deer_policies.errors import ConfigError

BLOCK = 128
"""Frames that are written at once."""
_PROPRIOCEPTION, _LABELS = 15, 7
_VALUES = _PROPRIOCEPTION + _LABELS


class FrameStore:
    """Frames by their place in the store.

    Attributes:
        folder: of `images.bin`, `values.bin`, and a marker for each block that is there.
        frames: how many.
        image_shape: (views, 3, height, width).
    """

    def __init__(self, folder: Path, frames: int, image_shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.frames = frames
        self.image_shape = tuple(image_shape)
        self._image_bytes = int(np.prod(self.image_shape))

    def create(self) -> None:
        """Makes the empty files, unless they are there. Raises ConfigError if the disk has no room for the images."""
        self._markers.mkdir(parents=True, exist_ok=True)
        sizes = {self._images: self.frames * self._image_bytes, self._values: self.frames * _VALUES * 4}
        if all(path.exists() and path.stat().st_size == size for path, size in sizes.items()):
            return
        free = shutil.disk_usage(self.folder).free
        if free < sum(sizes.values()):
            raise ConfigError(
                f"{self.folder} needs {sum(sizes.values()) / 2**30:.1f} GiB for {self.frames} frames, and the disk has "
                f"{free / 2**30:.1f} GiB left; choose another folder, or fewer tasks"
            )
        for marker in self._markers.iterdir():
            marker.unlink()
        for path, size in sizes.items():
            with open(path, "wb") as file:
                file.truncate(size)

    def missing(self) -> list[range]:
        """Places of the frames that are not there yet, block by block."""
        blocks = [range(first, min(first + BLOCK, self.frames)) for first in range(0, self.frames, BLOCK)]
        return [block for block in blocks if not self._marker(block).exists()]

    def write(self, block: range, images: np.ndarray, proprioception: np.ndarray, labels: np.ndarray) -> None:
        """Writes a block.

        Args:
            block: one of those that are `missing`.
            images: (frames of the block, *image_shape) uint8.
            proprioception, labels: (frames of the block, 15) and (.., 7).
        """
        values = np.concatenate([proprioception, labels], axis=1).astype(np.float32)
        for path, content in ((self._images, images), (self._values, values)):
            with open(path, "r+b") as file:
                file.seek(block.start * content[0].nbytes)
                file.write(np.ascontiguousarray(content).data)
                file.flush()
                os.fsync(file.fileno())
        self._marker(block).touch()

    def read(self, places: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, proprioception and labels of consecutive frames; the images stay on the disk until looked at."""
        images, values = self._arrays
        part = slice(places.start, places.stop)
        return images[part], values[part, :_PROPRIOCEPTION], values[part, _PROPRIOCEPTION:]

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        # Nobody writes, but PyTorch warns about arrays that can't be written to; and the system would count a private
        # map as memory, of which there is less.
        images = np.memmap(self._images, np.uint8, "r+", shape=(self.frames, *self.image_shape))
        return images, np.fromfile(self._values, np.float32).reshape(-1, _VALUES)

    @property
    def _images(self) -> Path:
        return self.folder / "images.bin"

    @property
    def _values(self) -> Path:
        return self.folder / "values.bin"

    @property
    def _markers(self) -> Path:
        return self.folder / "blocks"

    def _marker(self, block: range) -> Path:
        return self._markers / str(block.start)
