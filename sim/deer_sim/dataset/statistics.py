"""Means, deviations and bounds over the frames of a dataset, as CALVIN's statistics.yaml holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_TARGET = "calvin_models.calvin_agent.utils.transforms.NormalizeVector"


@dataclass(frozen=True)
class Statistics:
    """Sums over frames from which a dataset's statistics follow; add them up with `+`.

    Attributes:
        count: frames.
        sums, squares: (39,) sums of robot_obs and scene_obs (15 + 24) and of their squares.
        lowest, highest: (7,) bounds of the absolute actions.
    """

    count: int
    sums: np.ndarray
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, robot_obs: np.ndarray, scene_obs: np.ndarray, actions: np.ndarray) -> Statistics:
        """Sums over frames: (frames, 15), (frames, 24), (frames, 7)."""
        values = np.concatenate([robot_obs, scene_obs], axis=1).astype(np.float64)
        return cls(len(values), values.sum(0), (values**2).sum(0), actions.min(0), actions.max(0))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.count + other.count,
            self.sums + other.sums,
            self.squares + other.squares,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    def text(self) -> str:
        """The content of statistics.yaml."""
        import yaml

        mean = self.sums / self.count
        deviation = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0))
        entries: dict[str, Any] = {
            name: [{"_target_": _TARGET, "mean": mean[part].tolist(), "std": deviation[part].tolist()}]
            for name, part in (("robot_obs", slice(0, 15)), ("scene_obs", slice(15, None)))
        }
        entries["act_max_bound"] = self.highest.tolist()
        entries["act_min_bound"] = self.lowest.tolist()
        return yaml.safe_dump(entries, sort_keys=False)
