"""Runs a segment on many samples at once, and gives each of them, bit for bit, what it would get alone.

Matrix products may round differently when there are more rows. So for each segment and each shape the first batches
are compared with samples that run alone, and a size of batch whose samples come out otherwise is not used again. Where
no size passes, samples run alone: speed depends on what else is in a batch, results never do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence

import torch

from deer_policies.errors import ConfigError

logger = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]
Segment = Callable[..., Tensors]
"""Takes and gives tensors that all have the samples as their first axis."""
LARGEST = 64
"""Samples in a batch."""
CHECKS = 3
"""Batches of each size and shape that are compared before a size is trusted."""


class ExactBatches:
    """Remembers which sizes of batch are exact for which segment and shape."""

    def __init__(self, rows: int = 1) -> None:
        """Args:
        rows: a sample that runs alone does so in a batch of so many copies of itself. 1 is a plain single step. Where
            one row and many round differently, as they mostly do on a GPU, a batch of just so many can still agree
            with it; the price is that a lone sample costs what a batch does.

        Raises:
            ConfigError: if it is less than 1.
        """
        if rows < 1:
            raise ConfigError(f"batches of {rows} rows were asked for; it must be at least 1")
        self.rows = rows
        self._passed: dict[Hashable, int] = {}

    def run(self, name: Hashable, segment: Segment, samples: Sequence[Tensors]) -> list[Tensors]:
        """Runs a segment on samples that may differ in shape; those of one shape go together.

        Args:
            name: of the segment, for the record of what is exact.
            segment: takes the samples' tensors, each stacked along the first axis.
            samples: tensors of each sample, with a first axis of length 1.

        Returns:
            What the segment gives for each sample, in order, with a first axis of length 1.
        """
        groups: dict[Hashable, list[int]] = {}
        for index, sample in enumerate(samples):
            shape = tuple((part.shape, part.dtype) for part in sample)
            groups.setdefault((name, shape), []).append(index)
        found: dict[int, Tensors] = {}
        for key, indices in groups.items():
            while indices:
                size = self._size(key, len(indices))
                part, indices = indices[:size], indices[size:]
                found.update(zip(part, self._part(key, segment, [samples[index] for index in part]), strict=True))
        return [found[index] for index in range(len(samples))]

    def _size(self, key: Hashable, count: int) -> int:
        """The largest power of two within `count` that is not known to be inexact."""
        size = min(LARGEST, 1 << (count.bit_length() - 1))
        while size > 1 and self._passed.get((key, size), 0) < 0:
            size //= 2
        return size

    def _part(self, key: Hashable, segment: Segment, samples: list[Tensors]) -> list[Tensors]:
        if len(samples) == 1:
            return [self._alone(segment, samples[0])]
        size = len(samples)
        stacked = segment(*(torch.cat(parts) for parts in zip(*samples, strict=True)))
        # Copies, because a view into the batch may lie in memory otherwise than a sample's own tensor.
        rows = [tuple(part[index : index + 1].clone() for part in stacked) for index in range(size)]
        passed = self._passed.get((key, size), 0)
        if passed >= CHECKS:
            return rows
        alone = [self._alone(segment, sample) for sample in samples]
        exact = all(
            torch.equal(one, other)
            for row, sample in zip(rows, alone, strict=True)
            for one, other in zip(row, sample, strict=True)
        )
        self._passed[key, size] = passed + 1 if exact else -1
        if not exact:
            logger.debug("%s: batches of %d round otherwise than samples alone", key, size)
        return alone

    def _alone(self, segment: Segment, sample: Tensors) -> Tensors:
        if self.rows == 1:
            return segment(*sample)
        copies = (part.expand(self.rows, *part.shape[1:]).contiguous() for part in sample)
        return tuple(part[:1].clone() for part in segment(*copies))
