"""How training's forward passes are computed: in bfloat16 where that is faster, attention written out on a CPU."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

logger = logging.getLogger(__name__)

HALF = "bfloat16"


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies matrices in bfloat16; without, float32 is 70 times faster and has an LSTM."""
    found = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not found:
        logger.info("this processor has no bfloat16; forward passes on it are in float32")
    return found


def mixed_precision(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 if that is the precision asked for and, on a CPU, if it has it."""
    half = precision == HALF and (device.type != "cpu" or cpu_has_bfloat16())
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def cpu_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention written out: the fused one's backward pass is the slowest part of training a small model on a CPU."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
