"""Sizes of the network that spots the stop word, and what its checkpoint says."""

from __future__ import annotations

from dataclasses import dataclass

from deer_policies.errors import ConfigError

STEM_KERNEL = 3
"""Frames that the first layer sees at once."""
BUNDLED = "stop.safetensors"
"""File beside this module with the weights that are used unless others are named."""


@dataclass(frozen=True)
class SpotterConfig:
    """A stack of causal convolutions over log-mel frames.

    Attributes:
        channels: of all layers.
        kernel: frames of each depthwise convolution.
        dilations: one block for each; the network hears back over their sum times (kernel - 1), and two frames more.
        threshold: least mean probability, over `mean_frames` frames, that is a stop.
        mean_frames: frames of 10 ms.
    """

    channels: int = 96
    kernel: int = 5
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    threshold: float = 0.5
    mean_frames: int = 3

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"the threshold of the stop word is {self.threshold}; it must be in (0, 1)")
        if min(self.channels, self.kernel, self.mean_frames, *self.dilations) < 1:
            raise ConfigError("the sizes of the stop word's network must be at least 1")
