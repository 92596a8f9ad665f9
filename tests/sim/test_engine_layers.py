"""Pictures of which only the moving parts are drawn each time, against those drawn in one go."""

import numpy as np
import pytest

from deer_sim.engine.environment import TableEnvironment
from deer_sim.playtable.model import PlayTableModel
from deer_sim.playtable.scene import find_scene
from deer_sim.starts import sample_start


@pytest.fixture(scope="module", params=["A", "D"])
def both(request):
    """The same scene twice, drawn in layers and in one go."""
    with (
        TableEnvironment(PlayTableModel(find_scene(request.param)), cameras=False) as layered,
        TableEnvironment(PlayTableModel(find_scene(request.param)), cameras=False, exact=True) as whole,
    ):
        yield request.param, layered, whole


@pytest.mark.parametrize("task", ["lift_red_block_drawer", "turn_off_lightbulb", "unstack_block"])
def test_the_pictures_are_the_same_but_for_a_few_pixels_at_edges(both, task):
    name, layered, whole = both
    rng = np.random.default_rng(1)
    start = sample_start(task, name, rng)
    for environment in (layered, whole):
        environment.reset(robot_obs=start.robot_obs, scene_obs=start.scene_obs)
    for action in rng.uniform(-1, 1, size=(6, 7)):
        for environment in (layered, whole):
            environment.step(action)
        for found, wanted in zip(layered.pictures(), whole.pictures(), strict=True):
            assert (found != wanted).any(axis=2).sum() <= 4


def test_parts_out_of_view_are_not_drawn(both):
    _, layered, _ = both
    layered.reset(seed=0)
    layered.pictures()
    layers = layered._cameras._layers
    arm = {(layered._robot.body, link) for link in range(4)}
    assert arm <= layers._hidden
    upwards = layers.in_view(np.zeros(3), np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0]), 0.6)
    assert arm.isdisjoint(upwards)
    assert arm <= layers.in_view(
        np.array([-0.34, -2.0, 0.6]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]), 0.6
    )


def test_a_light_or_a_door_that_changes_is_seen_at_once(both):
    _, layered, whole = both
    for environment in (layered, whole):
        environment.reset(seed=0)
    before = layered.pictures()[0]
    for change in (
        lambda fixtures: fixtures._set_led(True),
        lambda fixtures: fixtures._set_bulb(True),
        lambda fixtures: fixtures._client.resetJointState(fixtures.body, fixtures._joints[1], 0.1),
    ):
        for environment in (layered, whole):
            change(environment._fixtures)
        found, wanted = layered.pictures()[0], whole.pictures()[0]
        assert (found != before).any(axis=2).sum() > 10
        assert (found != wanted).any(axis=2).sum() <= 4
        before = found
