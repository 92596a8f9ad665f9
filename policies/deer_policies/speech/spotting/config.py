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
    """A stack of causal convolutions over wide log-mel frames beside the speech embedding, and what weighs them up.

    Attributes:
        channels: of the stack's layers.
        kernel: frames of each of its depthwise convolutions.
        dilations: one block for each; it hears back over their sum times (kernel - 1), and two frames more.
        hidden: units that weigh up both.
        head_kernel, head_dilation: steps that they see, and how far these are apart.
        threshold: least probability that is a stop.
    """

    channels: int = 96
    kernel: int = 5
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    hidden: int = 128
    head_kernel: int = 4
    head_dilation: int = 2
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"the threshold of the stop word is {self.threshold}; it must be in (0, 1)")
        sizes = (self.channels, self.kernel, self.hidden, self.head_kernel, self.head_dilation, *self.dilations)
        if min(sizes) < 1:
            raise ConfigError("the sizes of the stop word's network must be at least 1")
