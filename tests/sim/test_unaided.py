"""Episodes of a policy that acts by itself."""

import numpy as np

from deer_policies.interfaces import ActionChunk, ExitReport, PolicyInfo
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import after_a_fixture_task, sample_start
from deer_sim.unaided import unaided_episode


class SwayingPolicy:
    """Sways from side to side, and notes what it is shown."""

    info = PolicyInfo("swaying", (0,))

    def __init__(self):
        self.seen = []

    def initial_state(self):
        return 0

    def step(self, observation, state):
        self.seen.append(observation)
        action = np.array([0.2 * np.sin(state), 0, 0, 0, 0, 0, -1.0], np.float32)
        return ActionChunk(action[None]), state + 1, ExitReport(0, 0, (), (), 1, 1, 1, 1, 1.0)


def test_it_holds_what_the_policy_saw_and_did_to_the_last_step():
    rng = np.random.default_rng(0)
    start = after_a_fixture_task(sample_start("open_drawer", "D", rng), "open_drawer", "D", rng)
    policy = SwayingPolicy()
    with PlayTable("D") as table:
        episode = unaided_episode(table, Expert("D"), policy, "open_drawer", "pull it", start, rng, max_steps=12)
    assert (episode.success, episode.steps) == (False, 12)
    assert len(policy.seen) == 12
    for index, observation in enumerate(policy.seen):
        assert observation.instruction == "pull it"
        assert np.array_equal(observation.rgb_static, episode.rgb_static[index])
        assert np.array_equal(observation.proprioception, episode.robot_obs[index].astype(np.float32))
    assert np.allclose(episode.executed[:, 0], 0.2 * np.sin(np.arange(12)))
    assert np.array_equal(episode.rel_actions, episode.executed)
