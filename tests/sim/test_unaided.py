"""Episodes of a policy that acts by itself."""

import numpy as np

from deer_policies.interfaces import ActionChunk, ExitReport, PolicyInfo
from deer_sim.collection import begin_at
from deer_sim.expert import Expert
from deer_sim.playtable.environment import PlayTable
from deer_sim.starts import Start, sample_start
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
    start = sample_start("open_drawer", "D", rng)
    policy, expert = SwayingPolicy(), Expert("D")
    with PlayTable("D") as table:
        first, _ = begin_at(table, expert, Start(start.robot_obs, start.scene_obs, ("turn_on_led",)), 0)
        episode = unaided_episode(table, policy, "open_drawer", "pull it", first, max_steps=12)
    assert (episode.success, episode.steps) == (False, 12)
    assert len(policy.seen) == 12
    for index, observation in enumerate(policy.seen):
        assert observation.instruction == "pull it"
        assert np.array_equal(observation.rgb_static, episode.rgb_static[index])
        assert np.array_equal(observation.proprioception, episode.robot_obs[index].astype(np.float32))
    assert np.array_equal(episode.robot_obs[0], first.robot_obs)
    assert np.allclose(episode.executed[:, 0], 0.2 * np.sin(np.arange(12)))
    assert np.array_equal(episode.rel_actions, episode.executed)
