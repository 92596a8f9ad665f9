"""Action chunks in the simulator: every action is executed, the policy is asked and pictures are drawn once a chunk."""

from __future__ import annotations

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ActionChunk, Budget, ExitReport, PolicyInfo
from deer_sim.chains import task_chains
from deer_sim.expert import Expert
from deer_sim.fleet import Setup, run_chain, run_chains
from deer_sim.playtable.environment import PlayTable
from deer_sim.rollout import ExpertActor, PolicyActor, rollout
from deer_sim.starts import sample_start
from deer_sim.step_record import StepRecord, StepRecorder
from deer_sim.unaided import unaided_episode

HORIZON = 3


class Chunked:
    """Its n-th answer is a chunk of three, whose actions say n and their place; its cost is n + 1."""

    info = PolicyInfo("chunked", (0, 1), horizon=HORIZON)
    budget = Budget()

    def __init__(self):
        self.seen = []

    def set_budget(self, budget):
        raise NotImplementedError

    def initial_state(self):
        return 0

    def step(self, observation, state):
        self.seen.append(observation)
        actions = np.zeros((HORIZON, 7), np.float32)
        actions[:, 0], actions[:, 1], actions[:, 6] = 0.01 * state, 0.1 * np.arange(HORIZON), -1.0
        report = ExitReport(state % 2, state % 2, (), (), state + 1.0, state + 2.0, 10.0, 20.0, 0.5)
        return ActionChunk(actions), state + 1, report


class Looked(PlayTable):
    """Notes at which steps pictures are drawn."""

    def __init__(self, scene):
        super().__init__(scene)
        self.drawn = []

    def pictures(self):
        self.drawn.append(self._steps)
        return super().pictures()


@pytest.fixture(scope="module")
def table():
    with Looked("D") as environment:
        yield environment


def started(table):
    start = sample_start("turn_on_led", "D", np.random.default_rng(3))
    first = table.reset(3, start.robot_obs, start.scene_obs)
    del table.drawn[:]
    return first


def test_every_action_of_a_chunk_is_executed_before_the_policy_is_asked_again(table):
    told = []
    result = rollout(
        table, PolicyActor(Chunked()), "turn_on_led", "lamp", started(table), 8, lambda *step: told.append(step), True
    )
    actions = np.array([action for _, action, _ in told])
    np.testing.assert_allclose(actions[:, 0], 0.01 * np.array([0, 0, 0, 1, 1, 1, 2, 2]), rtol=1e-6)
    np.testing.assert_allclose(actions[:, 1], 0.1 * np.array([0, 1, 2, 0, 1, 2, 0, 1]), rtol=1e-6)
    assert [report is not None for _, _, report in told] == [True, False, False, True, False, False, True, False]
    assert all(now.rgb_static is not None for now, _, _ in told), "pictures of every step were asked for"
    assert result.steps == 8
    assert result.exit_counts == {0: 2, 1: 1}
    assert (result.mean_llm_gmac, result.full_llm_gmac) == (2.0, 10.0)
    assert result.mean_exit_layers == pytest.approx(4 / 3)


def test_pictures_are_drawn_only_where_the_policy_looks_and_change_nothing(table):
    policy = Chunked()
    blind = rollout(table, PolicyActor(policy), "turn_on_led", "lamp", started(table), 8)
    assert table.drawn == [3, 6]
    assert blind.last.rgb_static is None
    seen, told = policy.seen, []
    filmed = rollout(
        table, PolicyActor(Chunked()), "turn_on_led", "lamp", started(table), 8, lambda now, *_: told.append(now), True
    )
    assert table.drawn == [1, 2, 3, 4, 5, 6, 7]
    assert np.array_equal(blind.last.robot_obs, filmed.last.robot_obs)
    assert np.array_equal(blind.last.scene_obs, filmed.last.scene_obs)
    for observation, now in zip(seen, told[::HORIZON], strict=True):
        assert np.array_equal(observation.rgb_static, now.rgb_static)
        assert np.array_equal(observation.rgb_gripper, now.rgb_gripper)
        assert np.array_equal(observation.proprioception, now.robot_obs.astype(np.float32))


def test_the_expert_never_looks(table):
    actor = ExpertActor(Expert("D"))
    first = started(table)
    actor.reset(first)
    assert rollout(table, actor, "turn_on_led", "lamp", first, 60).success
    assert table.drawn == []


def test_a_new_subtask_drops_the_chunk_and_sees_what_nobody_has_looked_at(table):
    policy = Chunked()
    actor = PolicyActor(policy)
    before = rollout(table, actor, "turn_on_led", "lamp", started(table), 4)
    assert before.last.rgb_static is None
    told = []
    rollout(table, actor, "open_drawer", "drawer", before.last, 2, lambda *step: told.append(step))
    assert [observation.instruction for observation in policy.seen] == ["lamp", "lamp", "drawer"]
    assert policy.seen[-1].time_s == pytest.approx(4 / 30)
    np.testing.assert_allclose([action[1] for _, action, _ in told], (0.0, 0.1), rtol=1e-6)


def test_simulator_processes_ask_the_model_once_a_chunk(table):
    plan = task_chains("D", ["turn_on_led"], 2, 7)
    policy = Chunked()
    results = {result.key: result for result in run_chains(iter(plan), Setup("playtable:D", max_steps=7), policy, 2)}
    assert len(policy.seen) == 2 * 3
    for chain in plan:
        assert results[chain.key] == run_chain(chain, table, PolicyActor(Chunked()), 7)
        (subtask,) = results[chain.key].subtasks
        assert (subtask.steps, subtask.policy_steps) == (7, 3)


def test_kept_steps_tell_which_of_them_the_policy_was_asked_at_and_draw_nothing_more(table, tmp_path):
    (chain,) = task_chains("D", ["turn_on_led"], 1, 7)
    recorder = StepRecorder(chain, Expert("D"))
    del table.drawn[:]
    run_chain(chain, table, PolicyActor(Chunked()), 7, recorder.add)
    assert table.drawn == [0, 2, 5, 8]
    recorder.save(tmp_path / "steps.npz")
    record = StepRecord.load(tmp_path / "steps.npz")
    assert record.asked.tolist() == [True, False, False, True, False, False, True]
    assert record.exit_index.tolist() == [0, 0, 0, 1, 1, 1, 0]
    np.testing.assert_allclose(record.action[:, 1], 0.1 * np.array([0, 1, 2, 0, 1, 2, 0]), rtol=1e-6)
    setup = Setup("playtable:D", max_steps=7, keep_steps=True, folder=tmp_path)
    (result,) = run_chains(iter([chain]), setup, Chunked(), 1)
    kept = StepRecord.load(tmp_path / result.steps)
    for name, values in vars(record).items():
        np.testing.assert_allclose(getattr(kept, name), values, atol=1e-6, err_msg=name)


def test_a_film_shows_every_control_step_and_keeps_the_last_report(tmp_path, monkeypatch):
    from deer_sim import chain_film

    shots = []
    frame = chain_film.FilmComposer.frame
    monkeypatch.setattr(chain_film.FilmComposer, "frame", lambda self, shot: shots.append(shot) or frame(self, shot))
    (chain,) = task_chains("D", ["turn_on_led"], 1, 7)
    with (
        PlayTable("D") as environment,
        chain_film.ChainFilm(tmp_path / "film.mp4", chain, (0, 1), "title", None) as film,
    ):
        run_chain(chain, environment, PolicyActor(Chunked()), 5, film.add, every_picture=True)
    assert [shot.step for shot in shots] == [1, 2, 3, 4, 5]
    assert [shot.asked for shot in shots] == [True, False, False, True, False]
    assert [shot.report.llm_gmac for shot in shots] == [1.0, 1.0, 1.0, 2.0, 2.0]
    assert (tmp_path / "film.mp4").stat().st_size > 1000


def test_an_unaided_episode_has_every_control_step_and_pictures_where_the_policy_looks(table):
    policy = Chunked()
    episode = unaided_episode(table, policy, "turn_on_led", "lamp", started(table), max_steps=7)
    assert (episode.steps, episode.looked.tolist(), table.drawn) == (7, [0, 3, 6], [3, 6])
    np.testing.assert_allclose(episode.rel_actions[:, 1], 0.1 * np.array([0, 1, 2, 0, 1, 2, 0]), rtol=1e-6)
    assert np.array_equal(episode.rel_actions, episode.executed)
    for index, observation in enumerate(policy.seen):
        assert np.array_equal(observation.rgb_static, episode.rgb_static[index])
        assert np.array_equal(observation.proprioception, episode.robot_obs[HORIZON * index].astype(np.float32))


@pytest.mark.parametrize("shape", [(7,), (0, 7), (3, 6)])
def test_what_is_no_chunk_is_refused(shape):
    with pytest.raises(ConfigError, match="action chunk has shape"):
        ActionChunk(np.zeros(shape, np.float32))
