"""Scene values: where things are in the world, whatever the scene calls them."""

from __future__ import annotations

import numpy as np
import pytest

from deer_policies.errors import SimulatorError
from deer_sim.environment import BLOCKS
from deer_sim.landmarks import LANDMARKS, Landmarks
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.scene import find_scene
from deer_sim.scene_values import scene_values
from deer_sim.starts import sample_start

POSES = {
    "red": (0.1, -0.1, 0.46, 0.0, 0.0, 1.2),
    "blue": (0.2, -0.05, 0.46, 0.0, 0.0, 1.6),
    "pink": (0.05, 0.09, 0.46, 0.0, 0.0, 1.9),
}


def laid_out(letter: str, fixtures: tuple[float, ...] = (0.1, 0.05, 0.0, 0.03, 1.0, 0.0), **poses) -> np.ndarray:
    """scene_obs (1, 24) with the blocks where `POSES` and then `poses` have them."""
    order = find_scene(letter).block_order
    return np.array([[*fixtures, *(value for colour in order for value in (POSES | poses)[colour])]])


def test_a_block_at_the_same_place_has_the_same_values_in_every_scene():
    values = {letter: scene_values(letter, laid_out(letter))[0] for letter in "ABCD"}
    assert all(found.shape == (20,) and found.dtype == np.float32 for found in values.values())
    for letter in "ABC":
        np.testing.assert_array_equal(values[letter][:15], values["D"][:15])
    for index, colour in enumerate(BLOCKS):
        *place, _, _, yaw = POSES[colour]
        expected = [*place, np.sin(2 * yaw), np.cos(2 * yaw)]
        np.testing.assert_allclose(values["A"][5 * index : 5 * index + 5], expected, rtol=1e-6)


def test_half_a_turn_of_a_block_makes_no_difference_and_a_quarter_does():
    *pose, yaw = POSES["red"]
    plain, half, quarter = (
        scene_values("A", laid_out("A", red=(*pose, yaw + turn)))[0] for turn in (0.0, np.pi, np.pi / 2)
    )
    np.testing.assert_allclose(half, plain, atol=1e-6)
    assert np.abs(quarter - plain).max() > 0.5


def test_fixtures_are_where_their_landmarks_are():
    """In the world, so that doors whose joints have other zeros agree."""
    for letter in "ABCD":
        layout = laid_out(letter)
        values = scene_values(letter, layout)[0, 15:]
        with PlayTable(letter, cameras=False) as table:
            (points,) = Landmarks(table.scene, table.lenses()).points(layout)
        door = points[LANDMARKS.index("door handle"), 0]
        np.testing.assert_allclose(values, [door, 0.05, 0.03, 1.0, 0.0], rtol=1e-6)


def test_they_tell_what_the_environment_has():
    start = sample_start("lift_red_block_table", "B", np.random.default_rng(0))
    with PlayTable("B", cameras=False) as table:
        now = table.reset(0, start.robot_obs, start.scene_obs)
    (values,) = scene_values("B", now.scene_obs[None])
    for index, colour in enumerate(BLOCKS):
        np.testing.assert_allclose(values[5 * index : 5 * index + 3], now.state.blocks[colour].position, atol=1e-6)
    assert values[16] == pytest.approx(now.state.drawer, abs=1e-6)
    assert values[18:].tolist() == [now.state.lightbulb, now.state.led]


def test_an_unknown_scene_is_refused():
    with pytest.raises(SimulatorError, match="unknown scene 'Z'"):
        scene_values("Z", laid_out("D"))
