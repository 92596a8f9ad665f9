"""Expert corrections: the policy acts, the expert labels, and takes over."""

import numpy as np
import pytest

from deer_policies.interfaces import ActionChunk, ExitReport, PolicyInfo
from deer_sim.collection import begin_at
from deer_sim.correction import LARGEST_LEAD_M, POLICY_STEPS, correct_episode
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import sample_start


class ConstantPolicy:
    """Does the same at every step, whatever it sees."""

    info = PolicyInfo("constant", (0,))

    def __init__(self, motion):
        self._action = np.array([*motion, 0, 0, 0, -1.0], np.float32)

    def initial_state(self):
        return 0

    def step(self, observation, state):
        return ActionChunk(self._action[None]), state + 1, ExitReport(0, 0, (), (), 1, 1, 1, 1, 1.0)


def corrected(policy, seed=0):
    rng = np.random.default_rng(seed)
    expert = Expert("D")
    with PlayTable("D") as table:
        first, _ = begin_at(table, expert, sample_start("turn_on_led", "D", rng), seed)
        return correct_episode(table, expert, policy, "turn_on_led", "press it", first, rng)


def test_policy_acts_first_and_the_expert_finishes():
    episode = corrected(ConstantPolicy((0, 0, 0)), seed=1)
    assert episode.success
    idle = (episode.executed[:, :6] == 0).all(axis=1)
    takeover = int(np.argmin(idle))
    assert 0 < takeover <= POLICY_STEPS
    assert np.array_equal(episode.executed[takeover:], episode.rel_actions[takeover:])
    assert np.abs(episode.rel_actions[:takeover, :3]).max() > 0.5


def test_episode_ends_when_the_policy_has_driven_against_the_table():
    episode = corrected(ConstantPolicy((0, 0, -1.0)), seed=3)
    assert not episode.success
    assert episode.steps < POLICY_STEPS
    assert np.diff(episode.robot_obs[-4:, 2]).max() < 0.01
    assert 0.02 * episode.steps > LARGEST_LEAD_M


class ChunkedPolicy:
    """Answers with three actions, of which the second and third are smaller; notes what it is shown."""

    info = PolicyInfo("chunked", (0,), horizon=3)

    def __init__(self):
        self.seen = []

    def initial_state(self):
        return 0

    def step(self, observation, state):
        self.seen.append(observation)
        actions = np.zeros((3, 7), np.float32)
        actions[:, 0], actions[:, 6] = (0.03, 0.02, 0.01), -1.0
        return ActionChunk(actions), state + 1, ExitReport(0, 0, (), (), 1, 1, 1, 1, 1.0)


def test_a_chunk_is_executed_to_its_end_and_pictures_are_of_the_steps_at_which_the_policy_looks():
    policy = ChunkedPolicy()
    episode = corrected(policy, seed=1)
    steps, asked = 3 * len(policy.seen), len(policy.seen)
    assert episode.success
    assert 0 < steps < episode.steps
    np.testing.assert_allclose(episode.executed[:steps, 0], [0.03, 0.02, 0.01] * asked)
    np.testing.assert_array_equal(episode.executed[steps:], episode.rel_actions[steps:])
    assert episode.looked.tolist() == list(range(0, episode.steps, 3))
    for index, observation in enumerate(policy.seen):
        np.testing.assert_array_equal(observation.rgb_static, episode.rgb_static[index])
        np.testing.assert_array_equal(observation.proprioception, episode.robot_obs[3 * index].astype(np.float32))


@pytest.mark.parametrize("seed", [1, 2])
def test_same_seed_gives_the_same_episode(seed):
    policy = ConstantPolicy((0.2, 0.1, 0))
    first, second = corrected(policy, seed), corrected(policy, seed)
    assert np.array_equal(first.executed, second.executed)
    assert np.array_equal(first.rgb_static, second.rgb_static)
