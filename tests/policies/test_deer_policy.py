"""The policy at run time: exits, explicit state, costs, budgets, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import blind_exits
from deer_policies.deer.config import changed
from deer_policies.deer.exits import ALWAYS, ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.preprocess import resize_uint8, stack_views
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.stepping import PolicyState, example_observation
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import BudgetError, ConfigError
from deer_policies.interfaces import Budget, Observation, Policy

CORPUS = ["open the drawer", "push the sliding door to the left side", "turn on the light bulb"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, 300, max_tokens=32)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    values = torch.rand(4, 400, generator=torch.Generator().manual_seed(0)) * 0.2
    return Calibration(values, "action", {"made": "up"})


@pytest.fixture
def policy(tokenizer, calibration) -> DeerPolicy:
    torch.manual_seed(0)
    return DeerPolicy(DeerModel(deer_nano()), tokenizer, calibration)


def observations(count: int, seed: int, instruction: str = CORPUS[0]) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            rng.integers(0, 256, (200, 200, 3), dtype=np.uint8),
            rng.integers(0, 256, (84, 84, 3), dtype=np.uint8),
            rng.normal(size=15).astype(np.float32),
            instruction,
            step / 30.0,
        )
        for step in range(count)
    ]


def rollout(policy: DeerPolicy, episode: list[Observation]) -> tuple[np.ndarray, list[int]]:
    state, actions, exits = policy.initial_state(), [], []
    for observation in episode:
        chunk, state, report = policy.step(observation, state)
        actions.append(chunk.first.values)
        exits.append(report.exit_index)
    return np.stack(actions), exits


def median_rule(policy: DeerPolicy, episode: list[Observation]) -> ThresholdRule:
    """Thresholds at the median distance of each exit, so that exits vary."""
    policy.set_exit_rule(ThresholdRule((-1.0, -1.0, -1.0, ALWAYS)))
    state, distances = policy.initial_state(), []
    for observation in episode:
        _, state, report = policy.step(observation, state)
        distances.append(report.distances)
    return ThresholdRule((*np.median(distances, axis=0)[:3].tolist(), ALWAYS))


def test_it_is_a_policy(policy):
    assert isinstance(policy, Policy)
    assert policy.info.exit_layers == (1, 3, 5, 7)
    assert policy.info.name == "deer-nano"


def test_actions_are_legal(policy):
    actions, _ = rollout(policy, observations(3, seed=1))
    assert np.abs(actions).max() <= 1.0
    assert set(np.abs(actions[:, 6])) == {1.0}
    assert actions.dtype == np.float32


def test_exits_vary_with_the_situation_and_with_the_thresholds(policy):
    episode = observations(12, seed=2)
    rule = median_rule(policy, episode)
    policy.set_exit_rule(rule)
    assert len(set(rollout(policy, episode)[1])) > 1
    policy.set_exit_rule(ThresholdRule((ALWAYS, *rule.thresholds[1:])))
    assert set(rollout(policy, episode)[1]) == {0}
    policy.set_exit_rule(ThresholdRule((-1.0, -1.0, -1.0, ALWAYS)))
    assert set(rollout(policy, episode)[1]) == {3}


def test_interleaved_episodes_equal_separate_ones_bit_for_bit(policy):
    first, second = observations(6, seed=3), observations(6, seed=4, instruction=CORPUS[1])
    policy.set_exit_rule(median_rule(policy, first + second))
    separate = rollout(policy, first)[0], rollout(policy, second)[0]
    states = [policy.initial_state(), policy.initial_state()]
    together: list[list[np.ndarray]] = [[], []]
    for pair in zip(first, second, strict=True):
        for index, observation in enumerate(pair):
            chunk, states[index], _ = policy.step(observation, states[index])
            together[index].append(chunk.first.values)
    for alone, interleaved in zip(separate, together, strict=True):
        assert np.array_equal(alone, np.stack(interleaved))


def test_the_state_matters_and_is_not_changed_in_place(policy):
    one, two = observations(2, seed=5)
    start = policy.initial_state()
    _, after, _ = policy.step(one, start)
    assert (start.step, after.step) == (0, 1)
    assert torch.equal(start.head.hidden, torch.zeros_like(start.head.hidden))
    again = [policy.step(two, after)[0].actions for _ in range(2)]
    assert np.array_equal(*again)
    assert not np.array_equal(again[0], policy.step(two, start)[0].actions)


def test_the_state_that_is_kept_is_the_one_of_the_exit_taken(policy):
    """Committing the candidate equals running the head again on its feature, which is what the official code does."""
    observation = observations(1, seed=6)[0]
    policy.set_exit_rule(ThresholdRule((-1.0, ALWAYS)))
    _, state, _ = policy.step(observation, policy.initial_state())
    model = policy.model
    with torch.inference_mode():
        ids, mask = policy.tokenizer.encode_batch([observation.instruction])
        views = stack_views(observation.rgb_static, observation.rgb_gripper, model.config.preprocess)
        features = model.features(views[None, None], ids, mask)
        robot = torch.from_numpy(observation.proprioception)[None, None]
        _, _, again = model.head(features[2], robot, policy.initial_state().head)
    assert torch.equal(again.hidden, state.head.hidden)
    assert torch.equal(again.cell, state.head.cell)


def test_report(policy):
    observation = observations(1, seed=7)[0]
    tokens = len(policy.tokenizer.encode(observation.instruction))
    policy.set_exit_rule(ThresholdRule((-1.0, ALWAYS, ALWAYS)))
    _, _, report = policy.step(observation, policy.initial_state())
    assert (report.exit_index, report.exit_layer) == (1, 3)
    assert len(report.distances) == 2
    assert report.llm_gmac == policy.costs.llm_gmac(1, tokens)
    # The head ran for the pseudo exit and for two exits.
    assert report.total_gmac == policy.costs.total_gmac(1, tokens, head_runs=3)
    assert report.full_llm_gmac == policy.costs.llm_gmac(3, tokens)
    assert report.full_total_gmac == policy.costs.total_gmac(3, tokens, head_runs=1)
    assert report.latency_ms > 0
    policy.set_exit_rule(ThresholdRule.fixed(1))
    _, _, fixed = policy.step(observation, policy.initial_state())
    assert fixed.distances == ()
    assert fixed.total_gmac == policy.costs.total_gmac(1, tokens, head_runs=1)


def test_no_limit_runs_all_layers(policy):
    policy.set_budget(Budget())
    assert rollout(policy, observations(1, seed=8))[1] == [3]


def test_average_budget_solves_thresholds(policy):
    full = policy.costs.llm_gmac(3)
    policy.set_budget(Budget(average_llm_gmac=0.6 * full))
    assert policy.budget == Budget(average_llm_gmac=0.6 * full)
    thresholds = policy.exit_rule.thresholds
    policy.set_budget(Budget(average_llm_gmac=0.8 * full))
    assert policy.exit_rule.thresholds != thresholds


def test_a_new_budget_holds_from_the_next_step(policy):
    observation = observations(1, seed=9)[0]
    state = policy.initial_state()
    for exit_index in (3, 0, 2):
        policy.set_budget(Budget(peak_llm_gmac=policy.costs.llm_gmac(exit_index, 32)))
        _, state, report = policy.step(observation, state)
        assert report.exit_index >= exit_index
    tokens = len(policy.tokenizer.encode(observation.instruction))
    policy.set_budget(Budget(peak_llm_gmac=max(policy.costs.llm_gmac(0), policy.costs.llm_gmac(0, tokens))))
    assert policy.step(observation, state)[2].exit_index == 0


def test_deep_exits_are_given_up_under_any_budget_until_the_next(policy):
    observation = observations(1, seed=9)[0]
    policy.set_budget(Budget(average_llm_gmac=0.8 * policy.costs.llm_gmac(3)))
    before, budget = policy.exit_rule.thresholds, policy.budget
    assert policy.exits_in_use == 4
    policy.limit_exits(2)
    assert (policy.exits_in_use, policy.budget) == (2, budget)
    assert policy.exit_rule.thresholds == (before[0], ALWAYS)
    report = policy.step(observation, policy.initial_state())[2]
    assert report.exit_index <= 1
    assert len(report.thresholds) == 2
    policy.limit_exits(3)
    assert policy.exits_in_use == 2, "a limit is not lifted by a wider one"
    for exits in (0, -1):
        with pytest.raises(BudgetError, match="at least 1"):
            policy.limit_exits(exits)
    policy.set_budget(Budget())
    assert policy.exits_in_use == 4
    assert policy.step(observation, policy.initial_state())[2].exit_index == 3


def test_exits_before_the_images_are_not_among_those_that_are_left(tokenizer):
    config = changed(deer_nano(), {"language": {"cross_attention_interval": 4}})
    policy = DeerPolicy(DeerModel(config), tokenizer)
    least = blind_exits(config) + 1
    assert least > 1
    policy.limit_exits(least)
    with pytest.raises(BudgetError, match=f"at least {least}, the first that has seen the images"):
        policy.limit_exits(least - 1)
    assert policy.exits_in_use == least


def test_the_peak_holds_for_a_longer_instruction_too(policy):
    limit = policy.costs.llm_gmac(3)  # at the reference length
    policy.set_budget(Budget(peak_llm_gmac=limit))
    long = observations(1, seed=10, instruction=" ".join(CORPUS))[0]
    assert len(policy.tokenizer.encode(long.instruction)) > policy.model.config.language.reference_tokens
    report = policy.step(long, policy.initial_state())[2]
    assert report.llm_gmac <= limit
    assert report.exit_index < 3


def test_peak_and_average_together(policy):
    policy.set_budget(Budget(average_llm_gmac=policy.costs.llm_gmac(0) * 1.5, peak_llm_gmac=policy.costs.llm_gmac(1)))
    assert len(policy.exit_rule.thresholds) == 2


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(average_llm_gmac=1e-6), "average_llm_gmac: an average of 1e-06 is below the cheapest"),
        (Budget(peak_llm_gmac=1e-6), "peak_llm_gmac = 1e-06 can't be met: the first exit needs"),
        (Budget(latency_ms=1e-6), "latency_ms = 1e-06 can't be met: the first exit needs"),
        (Budget(peak_memory_gib=1e-6), "load fewer"),
    ],
)
def test_a_budget_that_cannot_be_met_changes_nothing(policy, budget, words):
    policy.set_budget(Budget(average_llm_gmac=0.02))
    rule = policy.exit_rule
    with pytest.raises(BudgetError, match=words):
        policy.set_budget(budget)
    assert policy.budget == Budget(average_llm_gmac=0.02)
    assert policy.exit_rule is rule


def test_limits_that_cannot_be_met_together_name_the_one_that_is_too_low(policy):
    first, second = policy.costs.llm_gmac(0), policy.costs.llm_gmac(1)
    below, enough = 0.9 * first, 1.5 * first
    for budget, words in (
        (Budget(average_llm_gmac=below, peak_llm_gmac=second, latency_ms=1e4), "average_llm_gmac.* below the cheapest"),
        (Budget(average_llm_gmac=enough, peak_llm_gmac=below), "peak_llm_gmac .* first exit needs"),
        (Budget(average_llm_gmac=enough, peak_memory_gib=0.9 * policy.memory_gib), "peak_memory_gib .* layers need"),
        (Budget(average_llm_gmac=enough, peak_llm_gmac=second, latency_ms=1e-3), "latency_ms .* first exit needs"),
    ):
        with pytest.raises(BudgetError, match=words):
            policy.set_budget(budget)
    everything = Budget(enough, second, policy.memory_gib, 1e4)
    policy.set_budget(everything)
    assert policy.budget == everything


@pytest.mark.parametrize("kind", ["average_llm_gmac", "peak_llm_gmac", "peak_memory_gib"])
def test_the_least_that_a_refusal_names_is_allowed(policy, kind):
    with pytest.raises(BudgetError) as refused:
        policy.set_budget(Budget(**{kind: 1e-6}))
    least = float(re.search(r"(?:needs?|cheapest exit's) ([0-9.e-]+);", str(refused.value)).group(1))
    policy.set_budget(Budget(**{kind: least}))
    with pytest.raises(BudgetError):
        policy.set_budget(Budget(**{kind: 0.9999 * least}))


@pytest.mark.parametrize("kind", ["average_llm_gmac", "peak_llm_gmac"])
def test_each_limit_holds_from_the_next_step_and_no_longer_than_it_is_in_force(policy, kind):
    observation, state = observations(1, seed=9)[0], policy.initial_state()
    tokens = len(policy.tokenizer.encode(observation.instruction))
    least = {
        "average_llm_gmac": policy.costs.llm_gmac(0),
        "peak_llm_gmac": max(policy.costs.llm_gmac(0, tokens), policy.costs.llm_gmac(0)),
    }
    exits = []
    for budget in (Budget(), Budget(**{kind: least[kind]}), Budget()):
        policy.set_budget(budget)
        _, state, report = policy.step(observation, state)
        exits.append(report.exit_index)
    assert exits == [3, 0, 3]


def test_an_average_needs_a_calibration(tokenizer):
    plain = DeerPolicy(DeerModel(deer_nano(), auxiliary_heads=False), tokenizer)
    with pytest.raises(BudgetError, match="calibration"):
        plain.set_budget(Budget(average_llm_gmac=0.02))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rgb_static": np.zeros((100, 200, 3), np.uint8)}, "rgb_static has shape"),
        ({"rgb_gripper": np.zeros((84, 84, 3), np.float32)}, "dtype float32"),
        ({"proprioception": np.full(15, np.nan, np.float32)}, "not finite"),
        ({"proprioception": np.zeros(7, np.float32)}, "must be"),
        ({"instruction": "   "}, "instruction is empty"),
        ({"instruction": "a" * 600}, "at most 512"),
        ({"time_s": float("inf")}, "time_s"),
    ],
)
def test_bad_observations_are_refused_and_the_state_stays_usable(policy, change, words):
    good, state = example_observation(policy.info), policy.initial_state()
    before = policy.step(good, state)[0].actions
    with pytest.raises(ConfigError, match=words):
        policy.step(replace(good, **change), state)
    assert np.array_equal(policy.step(good, state)[0].actions, before)


def test_a_foreign_state_is_refused(policy):
    with pytest.raises(ConfigError, match="initial_state"):
        policy.step(example_observation(policy.info), None)


def test_weights_that_give_no_number_are_an_error_and_no_motion(policy):
    with torch.no_grad():
        policy.model.head.pose[-1].bias.fill_(float("nan"))
    with pytest.raises(ConfigError, match="not finite"):
        policy.step(example_observation(policy.info), policy.initial_state())


def test_more_thresholds_than_exits(policy):
    with pytest.raises(ConfigError, match="5 thresholds but the policy 4 exits"):
        policy.set_exit_rule(ThresholdRule((0.0,) * 5))


def test_a_tokenizer_of_another_model(tokenizer):
    small = changed(deer_nano(), {"language": {"vocabulary": 100}})
    with pytest.raises(ConfigError, match="use the tokenizer"):
        DeerPolicy(DeerModel(small, auxiliary_heads=False), tokenizer)


def test_many_instructions_are_not_all_remembered(policy):
    state = policy.initial_state()
    policy.set_exit_rule(ThresholdRule.fixed(0))
    for number in range(70):
        policy.step(example_observation(policy.info, f"open drawer {number}"), state)
    assert len(policy._stepper.texts) <= 64


def test_any_text_works(policy):
    for text in ("Ouvre le tiroir, s'il te plaît!", "打开抽屉", "x" * 500, "🤖", "<image><|endofchunk|>"):
        chunk, _, _ = policy.step(example_observation(policy.info, text), policy.initial_state())
        assert np.isfinite(chunk.actions).all()


def test_an_upper_case_instruction_is_the_same(policy):
    lower, upper = (
        policy.step(example_observation(policy.info, text), policy.initial_state())[0].actions
        for text in ("open the drawer", " OPEN the Drawer ")
    )
    assert np.array_equal(lower, upper)


def test_policy_state_is_a_value(policy):
    state = policy.initial_state()
    assert isinstance(state, PolicyState)
    with pytest.raises(AttributeError):
        state.step = 3


class TestPreprocess:
    def test_sizes_and_type(self):
        views = stack_views(
            np.zeros((200, 200, 3), np.uint8), np.full((84, 84, 3), 255, np.uint8), deer_nano().preprocess
        )
        assert views.shape == (2, 3, 96, 96)
        assert views.dtype == torch.uint8
        assert views[0].max() == 0
        assert views[1].min() == 255

    def test_antialiasing_removes_fine_stripes(self):
        stripes = np.zeros((200, 200, 3), np.uint8)
        stripes[:, ::2] = 255
        assert resize_uint8(stripes, deer_nano().preprocess).float().std() < 20

    def test_channels_and_orientation(self):
        image = np.zeros((200, 200, 3), np.uint8)
        image[:100, :, 0] = 200
        resized = resize_uint8(image, deer_nano().preprocess)
        assert resized[0, :40].min() == 200
        assert resized[0, 56:].max() == 0
        assert resized[1:].max() == 0

    def test_an_image_of_the_right_size_is_left_alone(self):
        image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        assert np.array_equal(resize_uint8(image, deer_nano().preprocess).permute(1, 2, 0), image)
