"""How weights are held: as float32, as 16-bit floats, or packed as integers by torchao; and the bytes that it takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from deer_policies.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

HEADS = ("head.", "auxiliary_heads.")
"""Action heads are float32 in every precision: exits are told apart by small differences between their poses, and the
recurrent state adds up what is lost in each step."""


@dataclass(frozen=True)
class Packing:
    """Weights of linear layers as integers with scales; activations stay floats ('weight-only').

    Attributes:
        bits: of one weight.
        group_bytes: of the scale and the zero point of a group.
        group: neighbouring weights of a row that make a group; None for the whole row.
        rows: the kernels take a multiple of so many.
    """

    bits: int
    group_bytes: int
    group: int | None = None
    rows: int = 1

    def fits(self, weight: torch.Tensor) -> bool:
        """Whether a weight (outputs, inputs) can be packed."""
        return weight.shape[0] % self.rows == 0 and weight.shape[1] % (self.group or 1) == 0

    def bytes_of(self, weight: torch.Tensor) -> int:
        """What a weight takes when it is packed."""
        groups = weight.shape[0] * (weight.shape[1] // self.group if self.group else 1)
        return weight.numel() * self.bits // 8 + groups * self.group_bytes


@dataclass(frozen=True)
class Precision:
    """How everything in front of the action heads (`HEADS`) is held and computed.

    Attributes:
        name: that it is asked for by.
        activations: PyTorch's name for the floats of activations and of weights that are not packed.
        packing: of the linear layers, or None. Embeddings, convolutions, norms and biases are never packed.
    """

    name: str
    activations: str
    packing: Packing | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and of weights that are not packed."""
        import torch

        dtype: torch.dtype = getattr(torch, self.activations)
        return dtype


FLOAT32 = Precision("float32", "float32")
PRECISIONS = {
    precision.name: precision
    for precision in (
        FLOAT32,
        Precision("bfloat16", "bfloat16"),
        Precision("float16", "float16"),
        Precision("int8", "bfloat16", Packing(bits=8, group_bytes=5)),
        Precision("int4", "bfloat16", Packing(bits=4, group_bytes=4, group=32, rows=16)),
    )
}
"""Scale and zero point of a row are float32 and int8 in int8, those of 32 weights are both bfloat16 in int4."""


def precision_named(name: str) -> Precision:
    """The precision of this name, ready to be used.

    Raises:
        ConfigError: listing the names there are, or if the library for it is missing.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"there is no precision {name!r}; choose one of {', '.join(PRECISIONS)}")
    precision = PRECISIONS[name]
    if precision.packing is not None:
        _torchao()
    return precision


class Storage:
    """Decides for every weight of a model how a precision holds it.

    Attributes:
        packed: names of the weights that become integers.
        unpacked: names of linear layers' weights that would too, if the kernels took their shape.
    """

    def __init__(self, precision: Precision, model: nn.Module) -> None:
        """Args:
        precision: to hold weights in.
        model: with float weights, for their names and shapes; they need no storage.
        """
        self._precision = precision
        self._weights = dict(model.named_parameters())
        packing = precision.packing
        linear = _linear_weights(model) if packing is not None else ()
        self.packed = tuple(name for name in linear if packing is not None and packing.fits(self._weights[name]))
        self.unpacked = tuple(name for name in linear if name not in self.packed)

    @property
    def bytes(self) -> int:
        """Of all weights; equal to `held_bytes` once they are stored (on a GPU, int4 kernels pad narrow layers)."""
        return sum(self._bytes_of(name, weight) for name, weight in self._weights.items())

    def _bytes_of(self, name: str, weight: torch.Tensor) -> int:
        if self._precision.packing is not None and name in self.packed:
            return self._precision.packing.bytes_of(weight)
        return weight.numel() * self._dtype(name).itemsize

    def _dtype(self, name: str) -> torch.dtype:
        return (FLOAT32 if name.startswith(HEADS) else self._precision).dtype

    def stored(self, name: str, weight: torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
        """A copy of a weight as it is held, on a device.

        Raises:
            CheckpointError: if it has values beyond the range of float16, or torchao can't pack it.
        """
        # A copy of its own is aligned, which results of matrix products depend on in the last bit.
        copy = converted(name, weight, self._dtype(name), device, copy=True)
        if self._precision.packing is None or name not in self.packed:
            return copy
        return _packed(name, copy, self._precision.packing)


def converted(
    name: str, weight: torch.Tensor, dtype: torch.dtype, device: str | torch.device = "cpu", copy: bool = False
) -> torch.Tensor:
    """A weight in another float type. Raises CheckpointError if float16 can't hold its values."""
    import torch

    result = weight.detach().to(device, dtype, copy=copy).contiguous()
    if dtype == torch.float16 and not bool(torch.isfinite(result).all()):
        raise CheckpointError(f"{name} has weights beyond the range of float16; take bfloat16 or float32")
    return result


def is_packed(weight: torch.Tensor) -> bool:
    """Whether it consists of other tensors: integers and scales."""
    return hasattr(weight, "__tensor_flatten__")


def held_bytes(model: nn.Module) -> int:
    """What the weights of a model really take."""
    return sum(map(_held, model.parameters()))


def _held(weight: torch.Tensor) -> int:
    if is_packed(weight):
        parts, _ = weight.__tensor_flatten__()  # type: ignore[attr-defined]
        return sum(_held(getattr(weight, part)) for part in parts)
    return weight.numel() * weight.element_size()


def _linear_weights(model: nn.Module) -> tuple[str, ...]:
    from torch import nn

    return tuple(
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(HEADS)
    )


def _packed(name: str, weight: torch.Tensor, packing: Packing) -> torch.Tensor:
    from torch import nn

    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    _torchao().quantize_(layer, _settings(packing, weight.device.type))
    # It passes over a shape that its kernels don't take without a word.
    if not is_packed(layer.weight):
        raise CheckpointError(f"torchao can't pack {name} {tuple(weight.shape)} as int{packing.bits}; take int8")
    return layer.weight


def _settings(packing: Packing, device: str) -> Any:
    if packing.bits == 8:
        return _torchao().Int8WeightOnlyConfig(set_inductor_config=False)
    if device == "cpu":
        # The only one with a packed layout for CPUs.
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=packing.group, set_inductor_config=False)
    # The default layout would need one more library.
    return _torchao().Int4WeightOnlyConfig(
        group_size=packing.group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


@cache
def _torchao() -> Any:
    try:
        with _expected_noise_silenced():
            import torchao.quantization
    except ImportError as error:
        raise ConfigError(f"integer weights need torchao ({error}): pip install 'deer_ros[quantisation]'") from error
    return torchao.quantization


def _is_news(record: logging.LogRecord) -> bool:
    """torchao's wheel comes with CUDA kernels that a PyTorch for CPUs can't load, and says so each time."""
    import torch

    text = record.getMessage()
    kernels = text.startswith("Failed to load") and "torchao" in text and torch.version.cuda is None
    return not kernels and "KernelPreference" not in text


@contextmanager
def _expected_noise_silenced() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)
