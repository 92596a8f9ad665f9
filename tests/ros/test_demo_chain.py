"""Tests of the demonstration's chain: valid for its start, drawn from the seed, worded as no training was."""

from __future__ import annotations

import numpy as np
import pytest

from deer_policies.errors import SimulatorError
from deer_ros.cli.demo.chain import draw_chain, turned_back
from deer_sim import instructions
from deer_sim.playtable.environment import PlayTable
from deer_sim.tasks import TASKS


def fixture_of(task: str) -> str:
    return next(name for name in ("slider", "drawer", "lightbulb", "led") if name in task)


@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
@pytest.mark.parametrize("seed", range(5))
def test_chain_moves_each_fixture_once_and_the_first_light_back(scene: str, seed: int) -> None:
    tasks = [link.task for link in draw_chain(scene, seed).links]
    assert set(tasks) <= set(TASKS)
    assert sorted(map(fixture_of, tasks[:4])) == ["drawer", "led", "lightbulb", "slider"]
    assert fixture_of(tasks[0]) in ("led", "lightbulb")
    assert tasks[4] == turned_back(tasks[0])


@pytest.mark.parametrize("seed", range(3))
def test_every_task_can_be_done_from_the_start(seed: int) -> None:
    chain = draw_chain("D", seed)
    with PlayTable("D", cameras=False) as table:
        state = table.reset(seed, chain.start.robot_obs, chain.start.scene_obs).state
    room = {
        "move_slider_left": 0.28 - state.slider,
        "move_slider_right": state.slider,
        "open_drawer": 0.22 - state.drawer,
        "close_drawer": state.drawer,
    }
    lit = {"lightbulb": state.lightbulb, "led": state.led}
    for link in chain.links[:4]:
        if link.task in room:
            assert room[link.task] > 0.149, link
        else:
            assert bool(lit[fixture_of(link.task)]) == ("_off_" in link.task), link


def test_seed_draws_start_and_chain() -> None:
    first, again, other = draw_chain("D", 1), draw_chain("D", 1), draw_chain("D", 2)
    assert first.links == again.links
    np.testing.assert_array_equal(first.start.scene_obs, again.start.scene_obs)
    assert first.links != other.links
    assert len({tuple(link.task for link in draw_chain("D", seed).links) for seed in range(20)}) > 10


def test_words_are_those_kept_apart_from_training() -> None:
    for seed in range(10):
        for link in draw_chain("D", seed).links:
            assert link.instruction in instructions.validation(link.task)
            assert link.instruction not in instructions.training(link.task)


def test_unknown_scene_is_refused() -> None:
    with pytest.raises(SimulatorError):
        draw_chain("Z", 0)
