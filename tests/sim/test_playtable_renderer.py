"""PlayTable's pictures: shapes, and that whatever a policy must see changes them."""

import numpy as np
import pytest

from deer_policies.interfaces import GRIPPER_SHAPE, STATIC_SHAPE
from deer_sim.playtable.environment import PlayTable


@pytest.fixture(scope="module")
def table():
    with PlayTable("D") as environment:
        yield environment


@pytest.fixture(scope="module")
def layout():
    """A scene_obs with every block on the table, in view of both cameras."""
    blocks = [[0.05, -0.12, 0.46, 0, 0, 1.57], [0.16, -0.12, 0.46, 0, 0, 1.57], [0.28, -0.12, 0.46, 0, 0, 1.57]]
    return np.concatenate([np.zeros(6), np.ravel(blocks)])


def changed_pixels(first: np.ndarray, second: np.ndarray) -> int:
    """Pixels that differ clearly."""
    return int((np.abs(first.astype(int) - second.astype(int)).max(axis=-1) > 40).sum())


def test_shapes_and_types(table):
    step = table.reset(seed=0)
    assert step.rgb_static.shape == STATIC_SHAPE
    assert step.rgb_gripper.shape == GRIPPER_SHAPE
    assert step.rgb_static.dtype == step.rgb_gripper.dtype == np.uint8
    observation = step.observation("open the drawer")
    assert observation.proprioception.dtype == np.float32
    with PlayTable("D", cameras=False) as blind:
        step = blind.reset(seed=0)
        assert step.rgb_static is None
        with pytest.raises(ValueError, match=r"Environment\.look"):
            step.observation("open the drawer")


@pytest.mark.parametrize(
    ("index", "value", "least"),
    [(0, 0.28, 1500), (1, 0.22, 1500), (3, 0.088, 100), (4, 1.0, 60), (5, 1.0, 150)],
    ids=["slider", "drawer", "switch", "lightbulb", "led"],
)
def test_fixtures_and_lights_are_seen(table, layout, index, value, least):
    before = table.reset(scene_obs=layout).rgb_static
    layout = layout.copy()
    layout[index] = value
    assert changed_pixels(before, table.reset(scene_obs=layout).rgb_static) > least


def test_a_pressed_button_is_seen(table, layout):
    """The button is black, on a brown table; it sinks by 2 cm."""
    before = table.reset(scene_obs=layout).rgb_static
    layout = layout.copy()
    layout[2] = 0.02
    assert changed_pixels(before, table.reset(scene_obs=layout).rgb_static) > 20


@pytest.mark.parametrize("block", [0, 1, 2])
def test_blocks_are_seen_by_both_cameras(table, layout, block):
    before = table.reset(scene_obs=layout)
    moved = layout.copy()
    moved[6 + 6 * block + 2] = 0.05
    after = table.reset(scene_obs=moved)
    assert changed_pixels(before.rgb_static, after.rgb_static) > 80
    assert changed_pixels(before.rgb_gripper, after.rgb_gripper) > 20


def test_the_floor_fills_what_is_empty(table):
    """No pixel keeps TinyRenderer's plain white background."""
    step = table.reset(seed=0)
    for picture in (step.rgb_static, step.rgb_gripper):
        assert not (picture == 255).all(axis=-1).any()


def test_pictures_follow_the_arm(table):
    before = table.reset(seed=0)
    for _ in range(10):
        after = table.step(np.array([1.0, 0.5, 0, 0, 0, 0, 1]))
    assert changed_pixels(before.rgb_static, after.rgb_static) > 1000
    assert changed_pixels(before.rgb_gripper, after.rgb_gripper) > 500


def test_pictures_are_repeatable(table):
    first = table.reset(seed=3)
    table.reset(seed=4)
    second = table.reset(seed=3)
    assert np.array_equal(first.rgb_static, second.rgb_static)
    assert np.array_equal(first.rgb_gripper, second.rgb_gripper)
