"""Camera images to the size that the vision encoder takes, the same way in training and in use."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from deer_policies.deer.config import PreprocessConfig


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
        from PIL import Image

        # The official models were trained on images that Pillow resized; PyTorch's bicubic differs now and then.
        resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()
    return F.interpolate(pixels[None], (size, size), mode=config.interpolation, antialias=True)[0].contiguous()


def stack_views(rgb_static: np.ndarray, rgb_gripper: np.ndarray, config: PreprocessConfig) -> torch.Tensor:
    """Both camera images as (views, 3, image_size, image_size) uint8, static first."""
    return torch.stack([resize_uint8(rgb_static, config), resize_uint8(rgb_gripper, config)])
