"""Starts in the middle of a chain: possible by the rules, varied, and the expert gets through."""

from collections.abc import Sequence

import numpy as np
import pytest

from deer_policies.errors import SimulatorError
from deer_sim import chained_starts
from deer_sim.calvin.rules import CATEGORIES, Condition, after, defies_door
from deer_sim.calvin.sequences import START_ROBOT_OBS
from deer_sim.chained_starts import LONGEST, chained_start
from deer_sim.collection import begin_at, collect_episode
from deer_sim.environment import BLOCKS
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.scene import DRAWER_RANGE_M, find_scene
from deer_sim.starts import Start
from deer_sim.tasks import FIXTURE_TASKS, TASKS


def condition_of(start: Start, letter: str) -> Condition:
    """The symbolic state that a start shows."""
    scene, obs = find_scene(letter), start.scene_obs
    blocks = dict(zip(scene.block_order, obs[6:].reshape(3, 6), strict=True))
    middle = sum(scene.cabinet_x) / 2
    places = {}
    for colour in BLOCKS:
        x, y = blocks[colour][:2]
        places[f"{colour}_block"] = "table" if y < 0.0 else "slider_left" if x < middle else "slider_right"
    return {
        "led": int(obs[5]),
        "lightbulb": int(obs[4]),
        "slider": "left" if obs[0] > scene.slider_range / 2 else "right",
        "drawer": "open" if obs[1] > DRAWER_RANGE_M / 2 else "closed",
        **places,
        "grasped": 0,
    }


def walked(condition: Condition, tasks: Sequence[str]) -> bool:
    """Whether each task can be done after the one before."""
    state: Condition | None = condition
    for task in tasks:
        state = None if state is None else after(task, state)
    return state is not None


@pytest.mark.parametrize("scene", "ABCD")
def test_every_task_is_possible_after_its_prefix_by_the_rules(scene):
    lengths = set()
    for index, task in enumerate(TASKS):
        for seed in range(3):
            start = chained_start(task, scene, TASKS, np.random.default_rng([index, seed]))
            chain = (*start.prefix, task)
            assert walked(condition_of(start, scene), chain), chain
            assert len({CATEGORIES[each] for each in chain}) == len(chain), chain
            lengths.add(len(start.prefix))
    assert lengths == set(range(1, LONGEST + 1))


def test_a_task_that_the_door_prevents_is_not_asked_for(monkeypatch):
    """By the rules, a block that was placed in the cabinet can be lifted again once the door was moved over it."""
    asked = []
    monkeypatch.setattr(chained_starts, "defies_door", lambda chain: asked.append(defies_door(chain)) or asked[-1])
    tasks = ("lift_red_block_table", "place_in_slider", "move_slider_left", "move_slider_right")
    for seed in range(20):
        start = chained_start("lift_red_block_slider", "A", tasks, np.random.default_rng(seed))
        assert not defies_door((*start.prefix, "lift_red_block_slider"))
    assert any(asked), "no such chain was drawn; the test would not see that one gets through"


def test_scene_d_has_the_starts_of_the_benchmark_beside_others_but_never_the_official_ones():
    own = 0
    for seed in range(30):
        start = chained_start("open_drawer", "D", TASKS, np.random.default_rng(seed))
        elsewhere = chained_start("open_drawer", "A", TASKS, np.random.default_rng(seed))
        own += np.array_equal(start.robot_obs, START_ROBOT_OBS)
        assert not np.array_equal(elsewhere.robot_obs, START_ROBOT_OBS)
    assert 5 < own < 25


def test_benchmark_starts_are_never_drawn_by_the_official_seed(monkeypatch):
    seeds = []
    original = chained_starts.start_state
    monkeypatch.setattr(
        chained_starts, "start_state", lambda condition, seed: seeds.append(seed) or original(condition, seed)
    )

    class Lowest(np.random.Generator):
        """Draws 0 where a seed is asked for."""

        def integers(self, low, high=None, **others):
            return 0 if low == chained_starts._STATES else super().integers(low, high, **others)

    for seed in range(5):
        chained_start("open_drawer", "D", TASKS, Lowest(np.random.PCG64(seed)))
    assert seeds
    assert min(seeds) >= 1


def test_the_seed_decides():
    first, second, other = (chained_start("open_drawer", "B", TASKS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.prefix == second.prefix
    assert np.array_equal(first.scene_obs, second.scene_obs)
    assert not np.array_equal(first.scene_obs, other.scene_obs)


def test_a_task_that_no_prefix_leads_to_is_refused(monkeypatch):
    monkeypatch.setattr(chained_starts, "_TRIES", 50)
    with pytest.raises(SimulatorError, match="after which unstack_block is possible; allow more tasks"):
        chained_start("unstack_block", "D", FIXTURE_TASKS, np.random.default_rng(0))


@pytest.mark.parametrize(("scene", "task"), [("A", "turn_on_led"), ("B", "open_drawer"), ("D", "turn_off_lightbulb")])
def test_the_expert_gets_through_and_the_arm_is_elsewhere_then(scene, task):
    start = chained_start(task, scene, FIXTURE_TASKS, np.random.default_rng(4))
    expert = Expert(scene)
    with PlayTable(scene, cameras=False) as table:
        first, reached = begin_at(table, expert, start, 0)
        assert reached
        assert np.linalg.norm(first.robot_obs[:3] - start.robot_obs[:3]) > 0.05
        assert collect_episode(table, expert, task, task, first, np.random.default_rng(0)).success
