"""The statistics that LeRobot keeps of each feature: of an episode, and of all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
IMAGES = 16
"""Images of an episode that are looked at."""

Values = dict[str, np.ndarray]


def _quantile_name(quantile: float) -> str:
    return f"q{round(100 * quantile):02d}"


def vector_statistics(values: np.ndarray) -> Values:
    """Statistics (dim,) of (steps, dim) values."""
    values = values.astype(np.float64)
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    found |= {_quantile_name(part): np.quantile(values, part, axis=0) for part in QUANTILES}
    return {**found, "count": np.array([len(values)])}


def image_statistics(images: Sequence[np.ndarray]) -> Values:
    """Statistics (3, 1, 1) over the pixels, in [0, 1], of some of an episode's (height, width, 3) uint8 images."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), IMAGES)).round().astype(int)
    pixels = np.stack([images[index] for index in chosen]).reshape(-1, 3) / 255.0
    found = {name: value.reshape(3, 1, 1) for name, value in vector_statistics(pixels).items() if name != "count"}
    return {**found, "count": np.array([len(chosen)])}


def merged(parts: Sequence[Values]) -> Values:
    """Statistics of several episodes together; the quantiles are means of theirs, as LeRobot takes them."""
    counts = np.array([float(part["count"][0]) for part in parts])
    shares = counts / counts.sum()

    def mean(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.tensordot(shares, np.stack(values), 1)

    found = {"min": np.min([part["min"] for part in parts], axis=0), "max": np.max([part["max"] for part in parts], 0)}
    found["mean"] = mean([part["mean"] for part in parts])
    found["std"] = np.sqrt(mean([part["std"] ** 2 + (part["mean"] - found["mean"]) ** 2 for part in parts]))
    found |= {name: mean([part[name] for part in parts]) for name in map(_quantile_name, QUANTILES)}
    return {**found, "count": np.array([int(counts.sum())])}
