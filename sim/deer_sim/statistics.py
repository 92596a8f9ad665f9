"""Confidence intervals for success rates and for paired differences."""

from __future__ import annotations

import math

import numpy as np


def wilson_interval(successes: int, attempts: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a success rate; z = 1.96 gives 95 % (Wilson 1927)."""
    if attempts == 0:
        return 0.0, 1.0
    rate = successes / attempts
    centre = rate + z * z / (2 * attempts)
    spread = z * math.sqrt(rate * (1 - rate) / attempts + z * z / (4 * attempts * attempts))
    scale = 1 + z * z / attempts
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def paired_difference(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, samples: int = 10000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of first - second over the same episodes, with a bootstrap interval: (mean, low, high).

    Args:
        first, second: (episodes,) outcomes of two policies on the same starts, in the same order.
        rng: randomness of the bootstrap.
        samples: number of resamples.
        confidence: of the interval.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"need two equal, non-empty vectors of outcomes; got {first.shape} and {second.shape}")
    difference = np.asarray(first, float) - np.asarray(second, float)
    means = difference[rng.integers(len(difference), size=(samples, len(difference)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(difference.mean()), float(low), float(high)


def bootstrap_ratio(
    parts: np.ndarray, wholes: np.ndarray, rng: np.random.Generator, samples: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of sum(parts) / sum(wholes) over episodes drawn with replacement (Efron 1979).

    Args:
        parts, wholes: (episodes,), for example successes and attempts; resamples without any whole are left out.
        rng: randomness of the bootstrap.
        samples: number of resamples.
        confidence: of the interval.
    """
    # Only the distinct pairs matter, so that a resample is a draw of how often each of them occurs.
    pairs, counts = np.unique(np.stack([parts, wholes], axis=1), axis=0, return_counts=True)
    drawn = rng.multinomial(len(parts), counts / len(parts), size=samples)
    sums = drawn @ pairs
    ratios = sums[sums[:, 1] > 0, 0] / sums[sums[:, 1] > 0, 1]
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(differences: np.ndarray, rng: np.random.Generator, samples: int = 10000) -> float:
    """Two-sided p-value of a paired permutation test: how often random signs give a mean as far from 0 (Fisher 1935).

    Args:
        differences: (episodes,) of two policies on the same starts.
        rng: randomness of the signs.
        samples: number of sign patterns.
    """
    pairs = differences[differences != 0]
    if len(pairs) == 0:
        return 1.0
    sums = np.abs((2 * rng.integers(0, 2, size=(samples, len(pairs))) - 1) @ pairs)
    # The observed pattern is one of those that chance may give.
    return float((1 + (sums >= abs(pairs.sum()) - 1e-9).sum()) / (samples + 1))
