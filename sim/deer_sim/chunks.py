"""Action chunks as labels: what the expert would do from a step on, as far as it is known."""

from __future__ import annotations

import numpy as np

from deer_policies.interfaces import POSE_SIZE

LARGEST_DEVIATION = 0.25
"""Root mean square over the pose, in units of the action, by which what was executed may differ from the label."""


def chunks(labels: np.ndarray, executed: np.ndarray, looked: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the next control steps for every step with a picture.

    A label holds for the state that the executed actions have led to. So the ones that follow a step at which something
    else than its label was executed are not what the expert would do after that label.

    Args:
        labels, executed: (steps, 7), see `deer_sim.collection.Episode`.
        looked: (looks,) the steps with pictures.
        horizon: length of a chunk.

    Returns:
        chunks (looks, horizon, 7) float32, and which labels are known (looks, horizon) bool; the others, also those
        behind the end, repeat the last label.
    """
    steps = looked[:, None] + np.arange(horizon)
    last = len(labels) - 1
    deviation = np.sqrt(np.mean((executed[:, :POSE_SIZE] - labels[:, :POSE_SIZE]) ** 2, axis=1))
    follows = (deviation <= LARGEST_DEVIATION) & (executed[:, POSE_SIZE] == labels[:, POSE_SIZE])
    inside = steps <= last
    good = np.where(inside, follows[np.minimum(steps, last)], False)
    known = inside & np.concatenate([np.ones((len(looked), 1), bool), good[:, :-1]], axis=1).cumprod(axis=1).astype(
        bool
    )
    return labels[np.minimum(steps, last)].astype(np.float32), known
