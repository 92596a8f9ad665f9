"""PlayTable in Gymnasium: the checker, tasks, rewards and options."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.playtable.gym import PlayTableGym
from deer_sim.tasks import TASKS

NAME = "deer/PlayTable-D-v0"
STAY = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)


@pytest.fixture(scope="module")
def environment():
    made = gymnasium.make(NAME, render_mode="rgb_array")
    yield made
    made.close()


def test_gymnasium_finds_nothing_to_complain_about(environment):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(environment.unwrapped)


def test_every_scene_is_registered(environment):
    for scene in "ABCD":
        assert gymnasium.spec(f"deer/PlayTable-{scene}-v0").max_episode_steps == 360


def test_an_episode_has_a_task_and_a_wording_and_a_picture(environment):
    observation, info = environment.reset(seed=5)
    assert info["task"] in TASKS
    assert info["instruction"]
    assert info["success"] is False
    assert np.array_equal(environment.render(), observation["rgb_static"])
    again, info_again = environment.reset(seed=5)
    assert info == info_again
    assert all(np.array_equal(observation[key], again[key]) for key in observation)


def test_the_reward_comes_with_success_only(environment):
    scene_obs = np.concatenate([[0, 0, 0, 0.088, 1, 0], np.zeros(18)])
    scene_obs[[6, 7, 8]], scene_obs[[12, 13, 14]], scene_obs[[18, 19, 20]] = (
        (0.05, -0.12, 0.46),
        (0.2, -0.12, 0.46),
        (0.3, -0.12, 0.46),
    )
    environment.reset(seed=0, options={"task": "turn_off_lightbulb", "scene_obs": scene_obs})
    _, reward, terminated, truncated, info = environment.step(STAY)
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    table = environment.unwrapped._environment
    table._client.resetJointState(table._fixtures.body, table._fixtures._joints[3], 0.0)
    _, reward, terminated, truncated, info = environment.step(STAY)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_an_episode_ends_after_360_steps():
    environment = gymnasium.make(NAME, task="open_drawer")
    environment.unwrapped._environment._cameras = _Blank()
    environment.reset(seed=0)
    for _ in range(359):
        assert not environment.step(STAY)[3]
    assert environment.step(STAY)[3]
    environment.close()


class _Blank:
    """Cameras that cost nothing."""

    def rebuilt(self, fixtures) -> None:
        pass

    def static(self) -> np.ndarray:
        return np.zeros((200, 200, 3), np.uint8)

    def gripper(self) -> np.ndarray:
        return np.zeros((84, 84, 3), np.uint8)


def test_options_are_obeyed_or_refused(environment):
    _, info = environment.reset(options={"task": "turn_on_led", "instruction": " light it "})
    assert (info["task"], info["instruction"]) == ("turn_on_led", "light it")
    with pytest.raises(ConfigError, match="unknown reset options"):
        environment.reset(options={"goal": 1})
    with pytest.raises(ConfigError, match="unknown task 'dance'"):
        environment.reset(options={"task": "dance"})
    with pytest.raises(SimulatorError, match="begins with a block in the hand"):
        environment.reset(options={"task": "stack_block"})
    with pytest.raises(ConfigError, match="unknown render_mode 'ansi'"):
        PlayTableGym(render_mode="ansi")
