"""Google's speech embedding (Lin et al., 2020: https://arxiv.org/abs/2002.01322; Apache-2.0), a part of the spotter.

Twenty convolutions over narrow log-mel frames, in turn over bands and over time. Upstream gives an embedding of
76 frames each 8 frames; here the last pooling keeps every step, which gives one each 4 frames with the same weights.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import CheckpointError, ConfigError

DIM = 96
FRAMES = 76
"""That an embedding is of."""
STEP = 4
"""Frames from one embedding to the next."""
SLOPE, LEAST = 0.2, -0.4
"""Of the activation: below nothing it is so steep, and not less than that."""


@dataclass(frozen=True)
class Layer:
    """A convolution, its activation, and the pooling after it.

    Attributes:
        channels_in, channels: of the convolution.
        taps: over time and bands.
        pool: greatest of so many steps and bands.
        stride: of the pooling over time.
        dilation: of the taps over time.
        active: whether there is an activation.
    """

    channels_in: int
    channels: int
    taps: tuple[int, int]
    pool: tuple[int, int] = (1, 1)
    stride: int = 1
    dilation: int = 1
    active: bool = True


def _layers() -> tuple[Layer, ...]:
    found = [Layer(1, 24, (3, 3)), Layer(24, 24, (1, 3)), Layer(24, 24, (3, 1), (2, 2), 2)]
    before = 24
    for channels, pool, stride in ((48, (1, 2), 1), (72, (2, 2), 2), (96, (1, 2), 1), (96, (2, 2), 1)):
        found += [Layer(before, channels, (1, 3)), Layer(channels, channels, (3, 1))]
        found += [Layer(channels, channels, (1, 3)), Layer(channels, channels, (3, 1), pool, stride)]
        before = channels
    return (*found, Layer(96, DIM, (3, 1), dilation=2, active=False))


LAYERS = _layers()


def read(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (channels, time, bands, channels before) and biases of the layers, from upstream's TFLite file.

    Raises:
        CheckpointError: if it holds another network.
        ConfigError: if the package that reads the format is missing.
    """
    try:
        from tflite.BuiltinOperator import BuiltinOperator
        from tflite.Model import Model
    except ImportError as error:
        raise ConfigError(f"{path.name} needs {error.name}: pip install 'deer_ros[train]'") from error
    try:
        found = _convolutions(Model.GetRootAs(path.read_bytes(), 0), BuiltinOperator.CONV_2D)
    except (struct.error, AttributeError, TypeError, ValueError, IndexError):
        found = []
    if [weight.shape for weight, _ in found] != [(each.channels, *each.taps, each.channels_in) for each in LAYERS]:
        raise CheckpointError(f"{path} is not the speech embedding")
    return found


def _convolutions(model: Any, code: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a TFLite model's convolutions, in their order."""
    graph = model.Subgraphs(0)

    def values(index: int) -> np.ndarray:
        tensor = graph.Tensors(index)
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        return np.frombuffer(data.tobytes(), np.float32).reshape(tensor.ShapeAsNumpy())

    found = []
    for at in range(graph.OperatorsLength()):
        operator = graph.Operators(at)
        kind = model.OperatorCodes(operator.OpcodeIndex())
        if max(kind.BuiltinCode(), kind.DeprecatedBuiltinCode()) == code:
            found.append((values(operator.Inputs(1)), values(operator.Inputs(2))))
    return found


class EmbeddingStream:
    """Embeddings as frames come in.

    Args:
        weights: `embedding.N.weight` (time, bands * channels before, channels) and `embedding.N.bias` of each layer.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._stages = [
            _Stage(layer, weights[f"embedding.{at}.weight"], weights[f"embedding.{at}.bias"])
            for at, layer in enumerate(LAYERS)
        ]

    def push(self, frames: np.ndarray) -> np.ndarray:
        """The embeddings (m, DIM) that are complete with these frames (n, bands); the first is of `FRAMES` frames."""
        x = frames[:, :, None]
        for stage in self._stages:
            x = stage.push(x)
        return x[:, 0]


class _Stage:
    """A layer, with what it needs of the steps before."""

    def __init__(self, layer: Layer, weight: np.ndarray, bias: np.ndarray) -> None:
        self._layer, self._weight, self._bias = layer, weight, bias
        self._before: np.ndarray | None = None
        self._unpooled: np.ndarray | None = None

    def push(self, x: np.ndarray) -> np.ndarray:
        """The steps (m, bands, channels) that are complete with these (n, bands before, channels before)."""
        layer = self._layer
        x, self._before = _joined(self._before, x, layer.dilation * (layer.taps[0] - 1))
        count = max(0, len(x) - layer.dilation * (layer.taps[0] - 1))
        if layer.taps[1] > 1:
            # Much faster than np.pad for so little.
            edge = np.zeros((len(x), 1, x.shape[2]), np.float32)
            x = np.concatenate([edge, x, edge], 1)
            x = np.concatenate([x[:, at : x.shape[1] - layer.taps[1] + 1 + at] for at in range(layer.taps[1])], -1)
        taps = range(layer.taps[0])
        y = self._bias + sum(x[at * layer.dilation : at * layer.dilation + count] @ self._weight[at] for at in taps)
        if layer.active:
            y = np.maximum(np.where(y > 0, y, SLOPE * y), LEAST)
        return self._pooled(y)

    def _pooled(self, y: np.ndarray) -> np.ndarray:
        steps, bands = self._layer.pool
        if bands > 1:
            y = y.reshape(len(y), y.shape[1] // bands, bands, y.shape[2]).max(2)
        if steps == 1:
            return y
        stride = self._layer.stride
        joined = y if self._unpooled is None else np.concatenate([self._unpooled, y])
        count = max(0, (len(joined) - steps) // stride + 1)
        self._unpooled = joined[count * stride :]
        ends = [joined[at : at + count * stride : stride][:count] for at in range(steps)]
        return np.asarray(np.maximum.reduce(ends))


def _joined(before: np.ndarray | None, x: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """What came before and x, and the last steps of them."""
    joined = x if before is None else np.concatenate([before, x])
    return joined, joined[max(0, len(joined) - kept) :]


def exported(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """The weights of `EmbeddingStream`, from those that `read` gives."""
    found = {}
    for at, (weight, bias) in enumerate(layers):
        channels, steps, bands, before = weight.shape
        found[f"embedding.{at}.weight"] = np.ascontiguousarray(
            weight.transpose(1, 2, 3, 0).reshape(steps, bands * before, channels)
        )
        found[f"embedding.{at}.bias"] = bias
    return found
