"""The 34 success conditions, each on states that meet it and on states that just miss it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_sim.environment import BLOCKS, BlockState, SceneState
from deer_sim.tasks import TASKS, solved

TABLE, PLANK, DRAWER = ("table", "base_link"), ("table", "plank_link"), ("table", "drawer_link")
FINGER = ("robot", "panda_leftfinger")


def block(position=(0.1, -0.1, 0.46), yaw_deg=0.0, contacts=(TABLE,), roll_deg=0.0, speed=0.0) -> BlockState:
    """A block with its yaw (and a roll) in degrees."""
    roll, yaw = np.deg2rad([roll_deg, yaw_deg]) / 2
    quaternion = [
        np.cos(yaw) * np.sin(roll),
        np.sin(yaw) * np.sin(roll),
        np.sin(yaw) * np.cos(roll),
        np.cos(yaw) * np.cos(roll),
    ]
    return BlockState(np.array(position), np.array(quaternion), np.full(3, speed), np.zeros(3), frozenset(contacts))


def scene(robot=(), **changes) -> SceneState:
    """A scene in which nothing is going on, but for what is given."""
    blocks = {name: changes.pop(name, block((0.1 + 0.1 * index, -0.1, 0.46))) for index, name in enumerate(BLOCKS)}
    fixtures = {"slider": 0.1, "drawer": 0.1, "button": 0.0, "switch": 0.0, "lightbulb": False, "led": False}
    return SceneState(**(fixtures | changes), blocks=blocks, robot_contacts=frozenset(robot))


def lifted(height: float, contacts=(FINGER,)) -> BlockState:
    return block((0.1, -0.1, 0.46 + height), contacts=contacts)


STACKED = {"red": block(contacts=(("blue", ""),)), "blue": block(contacts=(TABLE, ("red", "")))}
HELD = scene(robot=(("red", ""),), red=lifted(0.1))


def cases():
    """(task, start, a state that solves it, states that do not)."""
    plain = scene()
    for name in BLOCKS:
        for side, sign in (("right", -1), ("left", 1)):
            yield (
                f"rotate_{name}_block_{side}",
                scene(**{name: block()}),
                scene(**{name: block(yaw_deg=sign * 75)}),
                [
                    scene(**{name: block(yaw_deg=sign * 59)}),
                    scene(**{name: block(yaw_deg=-sign * 75)}),
                    scene(**{name: block(yaw_deg=sign * 75, roll_deg=40)}),
                    scene(**{name: block((0.1, -0.1, 0.57), yaw_deg=sign * 75)}),
                    scene(**{name: block(yaw_deg=sign * 75, contacts=(FINGER,))}),
                ],
            )
        for side, sign in (("right", 1), ("left", -1)):
            yield (
                f"push_{name}_block_{side}",
                scene(**{name: block()}),
                scene(**{name: block((0.1 + sign * 0.11, -0.1, 0.46), contacts=(TABLE, FINGER))}),
                [
                    scene(**{name: block((0.1 + sign * 0.09, -0.1, 0.46))}),
                    scene(**{name: block((0.1 - sign * 0.11, -0.1, 0.46))}),
                    scene(**{name: block((0.1 + sign * 0.11, -0.1, 0.46), contacts=(FINGER,))}),
                    scene(**{name: block((0.1 + sign * 0.11, -0.1, 0.46), contacts=(DRAWER,))}),
                ],
            )
        for place, surface, height in (("table", TABLE, 0.05), ("slider", PLANK, 0.03), ("drawer", DRAWER, 0.05)):
            start = scene(**{name: lifted(0.0, contacts=(surface,))})
            yield (
                f"lift_{name}_block_{place}",
                start,
                scene(**{name: lifted(height + 0.001)}),
                [
                    scene(**{name: lifted(height - 0.001)}),
                    scene(**{name: lifted(height + 0.001, contacts=())}),
                    scene(**{name: lifted(height + 0.001, contacts=(FINGER, surface))}),
                ],
            )
    for task, joint, delta in (
        ("move_slider_left", "slider", 0.151),
        ("move_slider_right", "slider", -0.151),
        ("open_drawer", "drawer", 0.121),
        ("close_drawer", "drawer", -0.121),
    ):
        short = delta - np.sign(delta) * 0.002
        misses = [replace(plain, **{joint: 0.1 + short}), replace(plain, **{joint: 0.1 - delta})]
        yield task, plain, replace(plain, **{joint: 0.1 + delta}), misses
    for light in ("lightbulb", "led"):
        dark, lit = plain, replace(plain, **{light: True})
        yield f"turn_on_{light}", dark, lit, [dark]
        yield f"turn_off_{light}", lit, dark, [lit]
    for task, surface, other in (("place_in_slider", PLANK, DRAWER), ("place_in_drawer", DRAWER, PLANK)):
        misses = [
            scene(red=lifted(0.0, contacts=(surface, FINGER))),
            scene(red=lifted(0.0, contacts=(other,))),
            scene(red=lifted(0.0, contacts=())),
        ]
        yield task, HELD, scene(red=lifted(0.0, contacts=(surface,))), misses
    moving = {**STACKED, "red": replace(STACKED["red"], linear_velocity=np.array([0.0, 0.0, -1.1]))}
    leaning = {**STACKED, "red": block(contacts=(("blue", ""), TABLE))}
    in_hand = {**STACKED, "red": block(contacts=(("blue", ""), FINGER))}
    yield "stack_block", plain, scene(**STACKED), [plain, scene(**moving), scene(**leaning), scene(**in_hand)]
    apart = {"red": lifted(0.1), "blue": block()}
    yield "unstack_block", scene(**STACKED), scene(**apart), [scene(**STACKED), scene(**leaning)]
    fallen = scene(red=lifted(-0.1, contacts=(DRAWER, FINGER)))
    yield "push_into_drawer", plain, fallen, [plain, scene(red=lifted(-0.1, contacts=(("plane", ""),)))]


CASES = list(cases())


def test_there_are_34_tasks_in_the_order_of_the_benchmark():
    assert len(TASKS) == 34
    assert TASKS[0] == "rotate_red_block_right"
    assert TASKS[6:8] == ("push_red_block_right", "push_red_block_left")
    assert TASKS[12:16] == ("move_slider_left", "move_slider_right", "open_drawer", "close_drawer")
    assert TASKS[16:19] == ("lift_red_block_table", "lift_red_block_slider", "lift_red_block_drawer")
    assert TASKS[25:29] == ("place_in_slider", "place_in_drawer", "stack_block", "unstack_block")
    assert TASKS[29:] == ("turn_on_lightbulb", "turn_off_lightbulb", "turn_on_led", "turn_off_led", "push_into_drawer")


def test_every_task_has_a_case():
    assert sorted(case[0] for case in CASES) == sorted(TASKS)


@pytest.mark.parametrize(("task", "start", "hit", "misses"), CASES, ids=[case[0] for case in CASES])
def test_condition(task, start, hit, misses):
    assert task in solved(start, hit)
    for miss in misses:
        assert task not in solved(start, miss)
    assert task not in solved(hit, hit)


def test_the_start_matters():
    """Conditions that ask how things were before."""
    on_plank = scene(red=lifted(0.0, contacts=(PLANK,)))
    assert "lift_red_block_table" not in solved(on_plank, scene(red=lifted(0.1)))
    assert "place_in_slider" not in solved(scene(red=lifted(0.1)), on_plank)
    both_hands = scene(robot=(("red", ""), TABLE), red=lifted(0.1))
    assert "place_in_slider" not in solved(both_hands, on_plank)
    resting = scene(robot=(("red", ""),), red=lifted(0.0, contacts=(FINGER, TABLE)))
    assert "place_in_slider" not in solved(resting, on_plank)
    touched = scene(red=block(contacts=(TABLE, FINGER)))
    in_drawer = scene(red=lifted(-0.1, contacts=(DRAWER,)))
    assert "push_into_drawer" not in solved(touched, in_drawer)
    assert "stack_block" not in solved(scene(**STACKED), scene(**STACKED))
    floating = scene(red=block(contacts=()))
    assert "push_red_block_right" not in solved(floating, scene(red=block((0.3, -0.1, 0.46))))


def test_a_rotation_is_measured_from_the_start():
    start, turned = scene(red=block(yaw_deg=170)), scene(red=block(yaw_deg=-115))
    assert "rotate_red_block_left" in solved(start, turned)
    assert "rotate_red_block_right" not in solved(start, turned)


def test_only_the_wanted_tasks_are_told_and_unknown_ones_refused():
    lit = scene(led=True, slider=0.3)
    assert solved(scene(), lit) == {"turn_on_led", "move_slider_left"}
    assert solved(scene(), lit, ("turn_on_led", "open_drawer")) == {"turn_on_led"}
    with pytest.raises(ConfigError, match="unknown task 'fly'"):
        solved(scene(), lit, ("fly",))
