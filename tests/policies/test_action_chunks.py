"""A policy that gives several actions at a time: its chunk is what the head of the exit taken says, row for row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.exits import ALWAYS, ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.preprocess import stack_views
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Observation

HORIZON = 3
GRIPPER = (1.0, -1.0, 1.0)


@pytest.fixture(scope="module")
def policy(tiny) -> DeerPolicy:
    config = tiny.config(head={"horizon": HORIZON})
    torch.manual_seed(0)
    model = DeerModel(config, auxiliary_heads=False).eval()
    with torch.no_grad():
        # Random weights would give each of the three gripper commands alike.
        model.head.gripper[-1].bias += 5.0 * torch.tensor(GRIPPER)
    policy = DeerPolicy(model, tiny.tokenizer(config))
    policy.set_exit_rule(ThresholdRule((-1.0, ALWAYS)))
    return policy


def observation(tiny, seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    pictures = (rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (200, 84))
    return Observation(*pictures, rng.normal(size=15).astype(np.float32), tiny.texts[seed % 2], 0.0)


def test_the_rows_of_a_chunk_are_what_the_head_says_one_action_after_the_other(tiny, policy):
    seen, start = observation(tiny, 0), policy.initial_state()
    chunk, after, report = policy.step(seen, start)
    model = policy.model
    with torch.inference_mode():
        ids, mask = policy.tokenizer.encode_batch([seen.instruction])
        views = stack_views(seen.rgb_static, seen.rgb_gripper, model.config.preprocess)
        features = model.features(views[None, None], ids, mask)
        robot = torch.from_numpy(seen.proprioception)[None, None]
        poses, logits, state = model.head(features[report.exit_index + 1], robot, start.head)
    assert (policy.info.horizon, report.exit_index) == (HORIZON, 1)
    assert (poses.shape, logits.shape) == ((1, 1, 6 * HORIZON), (1, 1, HORIZON))
    assert chunk.actions.shape == (HORIZON, 7)
    for row, action in enumerate(chunk.each):
        np.testing.assert_allclose(action.values[:6], poses[0, 0, 6 * row : 6 * row + 6], rtol=0, atol=1e-6)
        assert action.values[6] == GRIPPER[row] == np.sign(float(logits[0, 0, row]))
    assert len(np.unique(chunk.actions[:, 0])) == HORIZON
    assert after.step == 1
    torch.testing.assert_close(after.head.hidden, state.hidden, rtol=0, atol=1e-6)


def test_a_batch_of_steps_gives_the_chunks_of_single_ones(tiny, policy):
    seen = [observation(tiny, seed) for seed in range(3)]
    states = [policy.initial_state()] * 3
    batched = policy.step_batch(seen, states)
    single = [policy.step(*each) for each in zip(seen, states, strict=True)]
    for (ours, _, _), (theirs, _, _) in zip(batched, single, strict=True):
        assert ours.actions.shape == (HORIZON, 7)
        assert np.array_equal(ours.actions, theirs.actions)


def test_exits_are_told_apart_by_all_actions_of_a_chunk(tiny, policy):
    """The first exit's distance is that of all three poses, not of the first alone."""
    seen = observation(tiny, 1)
    _, _, report = policy.step(seen, policy.initial_state())
    with torch.inference_mode():
        ids, mask = policy.tokenizer.encode_batch([seen.instruction])
        views = stack_views(seen.rgb_static, seen.rgb_gripper, policy.model.config.preprocess)
        features = policy.model.features(views[None, None], ids, mask)
        robot = torch.from_numpy(seen.proprioception)[None, None]
        poses = [policy.model.head(feature, robot, None)[0].flatten() for feature in features[:2]]
    assert report.distances[0] == pytest.approx(float((poses[1] - poses[0]).square().mean().sqrt()), rel=1e-4)


def test_a_horizon_of_none_is_refused(tiny):
    with pytest.raises(ConfigError, match="horizon"):
        tiny.config(head={"horizon": 0})
