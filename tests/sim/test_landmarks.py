"""Landmarks: they lie where the cameras show the thing."""

from __future__ import annotations

import numpy as np
import pytest

from deer_sim.calvin.environment import CalvinTable
from deer_sim.collection import begin_at
from deer_sim.environment import BLOCKS
from deer_sim.expert import Expert
from deer_sim.landmarks import LANDMARKS, Landmarks
from deer_sim.playtable import kinematics
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.robot import INITIAL_JOINTS
from deer_sim.playtable.scene import find_scene
from deer_sim.starts import block_poses, sample_start
from tests.sim.calvin_data import some_data

FIXTURES = {"door handle": (0, 0.2), "drawer handle": (1, 0.15), "switch": (3, 0.08)}
"""Place in scene_obs, and how far it is moved."""


def robot_at(place: np.ndarray, turned_rad: float = 0.0) -> np.ndarray:
    """robot_obs (15,) with the open hand at a place, turned about the vertical."""
    joints = np.array(INITIAL_JOINTS)
    _, euler = kinematics.forward(joints)
    about = kinematics.matrix_from_euler(np.array([0.0, 0.0, turned_rad]))
    euler = kinematics.euler_from_matrix(about @ kinematics.matrix_from_euler(euler))
    return np.concatenate([place, euler, [0.08], kinematics.inverse(place, euler, joints), [1.0]])


def scene_at(letter: str, seed: int = 0) -> np.ndarray:
    """scene_obs (24,) with all blocks on the table."""
    scene = find_scene(letter)
    poses = block_poses(dict.fromkeys(BLOCKS, "table"), scene, np.random.default_rng(seed))
    return np.concatenate([np.zeros(6), *(poses[colour] for colour in scene.block_order)])


def colour_at(picture: np.ndarray, column: float, row: float) -> str:
    """The block whose colour a place in a picture has, or nothing."""
    height, width = picture.shape[:2]
    red, green, blue = picture[int(row * height), int(column * width)].astype(int)
    if red > 2 * green and red > 2 * blue:
        return "red"
    if blue > 1.5 * red and blue > 1.5 * green:
        return "blue"
    return "pink" if red > 1.4 * green and blue > 1.2 * green else ""


@pytest.mark.parametrize("scene", "ABCD")
def test_a_blocks_landmark_is_on_its_pixels_in_both_pictures(scene):
    seen = {"static": 0, "gripper": 0}
    with PlayTable(scene) as table:
        landmarks = Landmarks(table.scene, table.lenses())
        layout = scene_at(scene)
        blocks = dict(zip(find_scene(scene).block_order, layout[6:].reshape(3, 6), strict=True))
        for colour in BLOCKS:
            robot = robot_at(blocks[colour][:3] + np.array([0.0, -0.05, 0.12]), turned_rad=0.3)
            now = table.reset(0, robot, layout)
            static, gripper = landmarks(now.robot_obs[None], now.scene_obs[None])[0]
            index = LANDMARKS.index(colour)
            assert gripper[index, 2] == 1.0, colour
            assert colour_at(now.rgb_gripper, *gripper[index, :2]) == colour
            for other in set(BLOCKS) - {colour}:
                column, row, inside = static[LANDMARKS.index(other)]
                assert inside == 1.0
                found = colour_at(now.rgb_static, column, row)
                # The arm may stand in front of one.
                assert found in (other, "")
                seen["static"] += found == other
            seen["gripper"] += 1
    assert seen["static"] >= 4


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixtures_landmark_moves_with_it_in_the_picture(name):
    place, way = FIXTURES[name]
    with PlayTable("D") as table:
        landmarks, layout = Landmarks(table.scene, table.lenses()), scene_at("D")
        robot, shown = robot_at(np.array([-0.15, -0.3, 0.62])), []
        for moved in (0.0, way):
            layout[place] = moved
            now = table.reset(0, robot, layout)
            spot = landmarks(now.robot_obs[None], now.scene_obs[None])[0, 0, LANDMARKS.index(name)]
            assert spot[2] == 1.0
            shown.append((now.rgb_static, spot))
    (before, old), (after, new) = shown
    assert difference(before, old, after, new) < 10.0
    assert difference(before, old, after, old) > 25.0
    assert difference(before, new, after, new) > 25.0


def difference(first: np.ndarray, spot: np.ndarray, second: np.ndarray, other: np.ndarray) -> float:
    """Mean difference between what is within three pixels of a place in one picture and of one in another."""
    cuts = []
    for picture, (column, row) in ((first, spot[:2]), (second, other[:2])):
        top, left = int(row * len(picture)), int(column * len(picture))
        cuts.append(picture[top - 3 : top + 4, left - 3 : left + 4].astype(float))
    return float(np.abs(cuts[0] - cuts[1]).mean())


def test_what_is_behind_the_camera_or_beside_the_picture_is_not_in_it():
    with PlayTable("D") as table:
        landmarks, layout = Landmarks(table.scene, table.lenses()), scene_at("D")
        # The button is to the left of the first picture, the door's handle above the second.
        for place, beside in (((0.2, -0.15, 0.65), "button"), ((0.0, -0.2, 0.6), "door handle")):
            now = table.reset(0, robot_at(np.array(place)), layout)
            seen = landmarks(now.robot_obs[None], now.scene_obs[None])[0, 1]
            assert seen[:, 2].any()
            assert not seen[LANDMARKS.index(beside)].any()
        now = table.reset(0, robot_at(np.array([0.2, -0.15, 0.65])), layout)
        # Turned over, it has the drawer's handle right behind it.
        turned = now.robot_obs[None] + np.array([0.0, 0.0, 0.0, np.pi, *[0.0] * 11])
        assert not landmarks(turned, now.scene_obs[None])[0, 1].any()


@pytest.mark.parametrize(
    ("task", "thing"),
    [
        ("turn_off_led", "button"),
        ("turn_on_lightbulb", "switch"),
        ("move_slider_left", "door handle"),
        ("open_drawer", "drawer handle"),
        ("place_in_drawer", "drawer handle"),
        ("place_in_slider", "door handle"),
        ("lift_pink_block_drawer", "pink"),
        ("lift_blue_block_slider", "blue"),
        ("push_red_block_left", "red"),
    ],
)
def test_a_task_is_about_the_thing_that_it_names(task, thing):
    with PlayTable("A", cameras=False) as table:
        landmarks, layout = Landmarks(table.scene, table.lenses()), scene_at("A")
        layout[:4] = 0.1, 0.05, 0.0, 0.03
        states = np.stack([layout, layout])
        states[1, [6, 12, 18]] += 0.02
        focus = landmarks.focus(task, np.stack([robot_at(np.array([0.0, -0.2, 0.6]))] * 2), states)
        points = landmarks.points(states)[:, LANDMARKS.index(thing)]
    assert focus.dtype == np.float32
    np.testing.assert_allclose(focus[:, :3], points, rtol=1e-6)
    yaws = dict(zip(find_scene("A").block_order, layout[[11, 17, 23]], strict=True))
    expected = [np.sin(2 * yaws[thing]), np.cos(2 * yaws[thing])] if thing in yaws else [0.0, 0.0]
    np.testing.assert_allclose(focus[:, 3:], [expected] * 2, rtol=1e-5, atol=1e-7)


def test_stacking_is_about_the_block_below_and_unstacking_about_the_upper_one():
    for task, about in (("stack_block", "below"), ("unstack_block", "above")):
        start = sample_start(task, "D", np.random.default_rng(0))
        with PlayTable("D", cameras=False) as table:
            expert = Expert("D")
            first, reached = begin_at(table, expert, start, 0)
            assert reached
            (focus,) = Landmarks(table.scene, table.lenses()).focus(task, first.robot_obs[None], first.scene_obs[None])
        heights = {colour: block.position[2] for colour, block in first.state.blocks.items()}
        block = min(
            first.state.blocks, key=lambda colour: np.abs(first.state.blocks[colour].position - focus[:3]).max()
        )
        highest = max(heights, key=heights.get)
        assert (block == highest) == (about == "above")
        np.testing.assert_allclose(focus[:3], first.state.blocks[block].position, atol=1e-5)


def test_they_are_in_the_same_pixels_of_calvins_own_scene() -> None:
    """A play table's fixtures are where CALVIN's are, and so are its cameras."""
    data, start = some_data(), sample_start("open_drawer", "D", np.random.default_rng(3))
    with PlayTable("D") as ours, CalvinTable("D", data) as theirs:
        states = [table.reset(0, start.robot_obs, start.scene_obs) for table in (ours, theirs)]
        found = [
            Landmarks(ours.scene, table.lenses())(now.robot_obs[None], now.scene_obs[None])[0]
            for table, now in zip((ours, theirs), states, strict=True)
        ]
    np.testing.assert_array_equal(found[0][..., 2], found[1][..., 2])
    np.testing.assert_allclose(found[0], found[1], atol=0.5 / 84)
