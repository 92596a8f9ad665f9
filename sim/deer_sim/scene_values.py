"""What is to be seen in the pictures of a play table, as numbers: where blocks and fixtures are, in the world."""

from __future__ import annotations

import numpy as np

from deer_sim.environment import BLOCKS
from deer_sim.expert.fixtures import DOOR_HANDLE_X_M
from deer_sim.playtable.scene import find_scene

_BLOCK_VALUES = 6


def scene_values(scene: str, scene_obs: np.ndarray) -> np.ndarray:
    """The same values for every scene, whose joints have other zeros and whose blocks another order.

    Args:
        scene: its letter.
        scene_obs: (steps, 24).

    Returns:
        (steps, 20) float32. For each block, in the order of `deer_sim.environment.BLOCKS`: place (3) in m, and sine and
        cosine of twice its yaw, since half a turn makes no difference. Then in m: x of the door's handle, how far the
        drawer is open and the switch up; 0 or 1 for bulb and LED. What never moves in a scene is left out: a policy
        would tell it by the scene's look, and be wrong in a scene that it has not seen.

    Raises:
        SimulatorError: if there is no such scene.
    """
    table = find_scene(scene)
    slider, drawer, _button, switch, bulb, led = np.asarray(scene_obs)[:, :6].T
    poses = np.asarray(scene_obs)[:, 6:].reshape(-1, len(BLOCKS), _BLOCK_VALUES)
    columns: list[np.ndarray] = []
    for colour in BLOCKS:
        pose = poses[:, table.block_order.index(colour)]
        columns += [*pose[:, :3].T, np.sin(2.0 * pose[:, 5]), np.cos(2.0 * pose[:, 5])]
    columns += [table.slider_x + DOOR_HANDLE_X_M - slider, drawer, switch, bulb, led]
    return np.stack(columns, axis=1).astype(np.float32)
