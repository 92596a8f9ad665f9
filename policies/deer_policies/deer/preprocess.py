"""Camera images to the size that the vision encoder takes, the same way in training and in use."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from deer_policies.deer.config import PreprocessConfig

CUBIC_SUPPORT = 2.0
CUBIC_A = -0.5
FIXED_POINT = 2**22


def resize_uint8(image: np.ndarray, config: PreprocessConfig) -> torch.Tensor:
    """Resizes one camera image with antialiasing.

    Args:
        image: (rows, columns, 3) uint8, square.

    Returns:
        (3, image_size, image_size) uint8; normalisation happens in the network.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    size = config.image_size
    if pixels.shape[1:] == (size, size):
        return pixels.contiguous()
    if config.interpolation == "bicubic":
        weights = _bicubic_weights(pixels.shape[1], size)
        columns = _rounded(pixels.double() @ weights.T)
        return _rounded(weights @ columns).to(torch.uint8)
    return F.interpolate(pixels[None], (size, size), mode=config.interpolation, antialias=True)[0].contiguous()


@lru_cache(maxsize=8)
def _bicubic_weights(source: int, target: int) -> torch.Tensor:
    """(target, source) weights of antialiased bicubic resizing in Pillow's fixed-point numbers, as float64.

    The official models were trained on images that Pillow resized: columns first, rounded to 8 bits, then rows. With
    PyTorch's own bicubic one pixel value in 300 comes out one level off. Float64 holds these sums exactly.
    """
    scale = source / target
    wide = max(scale, 1.0)
    weights = torch.zeros(target, source, dtype=torch.float64)
    for index in range(target):
        centre = (index + 0.5) * scale
        first = max(int(centre - CUBIC_SUPPORT * wide + 0.5), 0)
        last = min(int(centre + CUBIC_SUPPORT * wide + 0.5), source)
        x = ((torch.arange(first, last, dtype=torch.float64) - centre + 0.5) / wide).abs()
        near = ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
        far = (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC_A
        kernel = torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))
        fixed = kernel / kernel.sum() * FIXED_POINT
        weights[index, first:last] = (fixed + 0.5 * fixed.sign()).trunc()
    return weights


def _rounded(sums: torch.Tensor) -> torch.Tensor:
    return ((sums + FIXED_POINT // 2) / FIXED_POINT).floor().clamp(0.0, 255.0)


def stack_views(rgb_static: np.ndarray, rgb_gripper: np.ndarray, config: PreprocessConfig) -> torch.Tensor:
    """Both camera images as (views, 3, image_size, image_size) uint8, static first."""
    return torch.stack([resize_uint8(rgb_static, config), resize_uint8(rgb_gripper, config)])
