"""Saves vision: a view that looks as it did when it was last encoded keeps the latents it had then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deer_policies.errors import ConfigError

LARGEST_CHANGE = 255.0


@dataclass(frozen=True)
class ViewReuse:
    """When a view need not be encoded again.

    A view is always compared with the image that its latents were made from, and not with the step before, so that a
    slow drift adds up until it is seen. What is small in the image stays under any mean: hence the limit in steps.

    Attributes:
        below: mean absolute difference of the pixels (0..255, at the size that the vision encoder takes) under which
            a view counts as unchanged. 0 encodes every view at every step; with any smaller number than one pixel's
            share, such as 1e-6, only views that are the same in every pixel are reused.
        most_steps: a view is encoded again after so many steps in a row without.
    """

    below: float = 0.0
    most_steps: int = 10

    def __post_init__(self) -> None:
        if not 0.0 <= self.below <= LARGEST_CHANGE:
            raise ConfigError(f"views are reused below a change of {self.below}; it must be in 0 (never) to 255")
        if self.most_steps < 1:
            raise ConfigError(
                f"views are reused for {self.most_steps} steps; it must be at least 1, or `below` 0 for never"
            )


@dataclass(frozen=True)
class EncodedViews:
    """What a step has seen of each view, and from when.

    Attributes:
        images: (views, 3, height, width) uint8, each as it was when it was last encoded.
        latents: (views, latents, vision dim) made from these images.
        ages: steps since each was encoded; 0 for one that was encoded at this step.
    """

    images: torch.Tensor
    latents: torch.Tensor
    ages: tuple[int, ...]

    @property
    def encoded(self) -> tuple[bool, ...]:
        """Whether each view was encoded at this step."""
        return tuple(age == 0 for age in self.ages)


def views_to_encode(images: torch.Tensor, before: EncodedViews | None, reuse: ViewReuse) -> list[int]:
    """Positions of the views that have changed.

    Args:
        images: (views, 3, height, width) uint8 of this step.
        before: what the step before gave; None at the first step of a subtask, which encodes all.
        reuse: which views count as unchanged.
    """
    if before is None:
        return list(range(len(images)))
    change = (images.short() - before.images.short()).abs().float().mean((1, 2, 3))
    return [
        view
        for view, (mean, age) in enumerate(zip(change, before.ages, strict=True))
        if float(mean) >= reuse.below or age >= reuse.most_steps
    ]


def with_encoded(
    images: torch.Tensor, before: EncodedViews | None, fresh: Sequence[int], made: torch.Tensor | None
) -> EncodedViews:
    """What the step has seen, once its changed views are encoded.

    Args:
        images, before: as for `views_to_encode`.
        fresh: what that returned.
        made: latents (fresh views, latents, vision dim) of these, None if there are none.
    """
    if before is None:
        assert made is not None
        return EncodedViews(images, made, (0,) * len(images))
    ages = tuple(0 if view in fresh else age + 1 for view, age in enumerate(before.ages))
    if made is None:
        return EncodedViews(before.images, before.latents, ages)
    if len(fresh) == len(images):
        return EncodedViews(images, made, ages)
    seen, latents = before.images.clone(), before.latents.clone()
    seen[fresh], latents[fresh] = images[fresh], made
    return EncodedViews(seen, latents, ages)
