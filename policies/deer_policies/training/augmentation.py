"""Random shifts of images, the same for all frames of a clip so that motion stays what it was; brightness and tint."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def shift_clips(
    images: torch.Tensor, shift_px: tuple[int, ...], generator: torch.Generator, official: bool = False
) -> torch.Tensor:
    """Shifts each clip and view by a random number of whole pixels, repeating the border.

    Args:
        images: (batch, window, views, 3, height, width), any dtype.
        shift_px: largest shift of each view in pixels; one draw from -shift..shift for each axis, clip and view.
        generator: of the draws.
        official: draw as the released code does, for each frame on its own and from 1-shift..shift, which lets images
            drift by half a pixel on average (DeeR, `RandomShiftsAug.forward_traj`).

    Returns:
        Images of the same shape and dtype.
    """
    batch, window, _views, channels, height, width = images.shape
    shifted = images.clone()
    frames = window if official else 1
    for view, limit in enumerate(shift_px):
        if limit == 0:
            continue
        pixels = images[:, :, view].reshape(batch * frames, window // frames * channels, height, width)
        padded = F.pad(pixels.float(), (limit, limit, limit, limit), mode="replicate").to(images.dtype)
        offsets = torch.randint(int(official), 2 * limit + 1, (batch * frames, 2), generator=generator).tolist()
        cut = [
            row[:, top : top + height, left : left + width] for row, (top, left) in zip(padded, offsets, strict=True)
        ]
        shifted[:, :, view] = torch.stack(cut).view(batch, window, channels, height, width)
    return shifted


def jitter_clips(images: torch.Tensor, strength: float, tint: float, generator: torch.Generator) -> torch.Tensor:
    """Scales and offsets the brightness of each clip at random, and scales its colour channels.

    Args:
        images: (batch, window, views, 3, height, width), uint8.
        strength: largest change of brightness, a fraction.
        tint: largest change of a channel against the others, a fraction.
        generator: of the draws.

    Returns:
        Images of the same shape and dtype.
    """
    if strength == tint == 0.0:
        return images
    batch = images.shape[0]
    draws = torch.rand((batch, 2), generator=generator) * 2.0 - 1.0
    gain, offset = 1.0 + strength * draws[:, 0], 255.0 * 0.5 * strength * draws[:, 1]
    channels = 1.0 + tint * (torch.rand((batch, 3), generator=generator) * 2.0 - 1.0 if tint else torch.zeros(batch, 3))
    # A table of all values for each clip and channel: far quicker than computing with every pixel.
    scale = (gain[:, None] * channels)[..., None]
    tables = (torch.arange(256.0) * scale + offset[:, None, None]).clamp(0.0, 255.0).to(torch.uint8).numpy()
    made = torch.empty_like(images)
    for clip, of_clip, out in zip(images.numpy(), tables, made.numpy(), strict=True):
        for channel, table in enumerate(of_clip):
            np.take(table, clip[:, :, channel], out=out[:, :, channel])
    return made
