"""Writes frames to an MP4 file that plays in a browser (H.264, yuv420p), and reads videos; nobody else imports PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError

FRAME_RATE_HZ = 30
"""One video frame for each of CALVIN's control steps, so that the film runs at the robot's own speed."""
KEYFRAME_EVERY = 250
"""Frames from one that needs no other frame to the next."""
CONSTANT_RATE_FACTOR = 20
"""x264's quality: 18 is visually lossless, each 6 more halve the size."""


class VideoWriter:
    """Encodes RGB frames one by one; a context manager.

    The file appears under its final name only once it is complete; until then it has the ending `.part.mp4`.

    Raises:
        ConfigError: if the size is not even (yuv420p stores colour for 2 x 2 pixels), or a frame has another size.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        rate_hz: int = FRAME_RATE_HZ,
        keyframe_every: int = KEYFRAME_EVERY,
    ) -> None:
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ConfigError(f"video size is {width} x {height}; both must be positive and even: pad the frames")
        if rate_hz <= 0:
            raise ConfigError(f"video frame rate is {rate_hz} Hz; it must be positive")
        import av

        self.path = Path(path)
        self.frames = 0
        self._shape = (height, width, 3)
        self._part = self.path.with_suffix(".part.mp4")
        self._part.parent.mkdir(parents=True, exist_ok=True)
        # faststart puts the index in front, so that a browser starts to play before it has the whole file.
        self._container: Any = av.open(str(self._part), "w", options={"movflags": "+faststart"})
        self._stream: Any = self._container.add_stream("libx264", rate=rate_hz)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.options = {"crf": str(CONSTANT_RATE_FACTOR), "preset": "veryfast", "g": str(keyframe_every)}
        self._stream.codec_context.time_base = Fraction(1, rate_hz)

    def add(self, frame: np.ndarray, repeat: int = 1) -> None:
        """Appends a frame (height, width, 3) uint8 RGB, `repeat` times."""
        import av

        if self._container is None:
            raise ConfigError(f"{self.path} is closed; make a new VideoWriter to write another film")
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ConfigError(
                f"video frame has shape {frame.shape} and dtype {frame.dtype}; it must be {self._shape} and uint8"
            )
        video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="yuv420p")
        for _ in range(repeat):
            video_frame.pts = self.frames
            for packet in self._stream.encode(video_frame):
                self._container.mux(packet)
            self.frames += 1

    def close(self) -> None:
        """Finishes the file and gives it its final name; a second call does nothing. No frames, no file."""
        if self._container is None:
            return
        if self.frames:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()
        self._container = None
        if self.frames:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoReader:
    """Reads the frames of a video in order; going back is slow, for it begins again."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._position = 0
        self._container: Any = None

    def read(self, first: int, count: int) -> list[np.ndarray]:
        """Frames `first` to `first + count - 1`, each (height, width, 3) uint8 RGB.

        Raises:
            ConfigError: if the file can't be read, or ends before.
        """
        if self._container is None or first < self._position:
            self.close()
            self._open()
        found = []
        try:
            while self._position < first + count:
                frame = next(self._frames)
                if self._position >= first:
                    found.append(frame.to_ndarray(format="rgb24"))
                self._position += 1
        except StopIteration:
            raise ConfigError(
                f"{self.path} has {self._position} frames, but frame {first + count - 1} is asked for; copy it again"
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path} can't be read: {error}; copy it again") from error
        return found

    def _open(self) -> None:
        import av

        try:
            self._container = av.open(str(self.path))
            self._frames = self._container.decode(video=0)
        except (OSError, ValueError, IndexError) as error:
            raise ConfigError(f"{self.path} can't be read: {error}; copy it again") from error
        self._position = 0

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._container is not None:
            self._container.close()
            self._container = None
