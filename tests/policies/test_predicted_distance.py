"""The fitted criterion: what it looks at, what it learns from recorded distances, and how it travels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, load, load_policy, save
from deer_policies.deer.criteria import Candidate
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.predicted_distance import (
    FLOOR,
    GRIPPER_DISTANCE,
    LONGEST_STEPS,
    SIGNALS,
    PredictedDistance,
    Signals,
)
from deer_policies.deer.thresholds import Calibration, mean_cost, rule_for_average, taken_exits
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Budget
from deer_policies.training.calibration import calibrate, encode, replay

NOTHING = HeadState(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))


def candidate(first, last, logits=(9.0, 9.0)):
    """A chunk of two actions whose pose values are all `first`, then all `last`."""
    pose = torch.tensor([[first] * 6 + [last] * 6])
    return Candidate(torch.zeros(1, 4), lambda _: (pose, torch.tensor([logits]), NOTHING))


def test_signals_are_what_their_names_say():
    found = Signals().distance(candidate(0.0, 0.0), candidate(0.3, -0.1, (0.0, -9.0)), 15)
    told = dict(zip(SIGNALS, found[0].tolist(), strict=True))
    rms = ((0.3**2 + 0.1**2) / 2) ** 0.5
    assert told["consistency"] == told["size"] == pytest.approx(np.log(rms + FLOOR))
    assert told["bend"] == pytest.approx(np.log(0.4 + FLOOR))
    assert told["doubt"] == 1.0
    assert told["time"] == 15 / LONGEST_STEPS
    sure = Signals().distance(candidate(0.3, -0.1), candidate(0.3, -0.1, (20.0, -20.0)), 10**6)[0]
    assert sure[0] == pytest.approx(np.log(FLOOR))
    assert sure[3] < 1e-6
    assert sure[4] == 1.0


def recorded(samples=600, seed=0):
    """Signals of three exits, and errors that follow from bend and doubt alone; consistency tells nothing."""
    generator = torch.Generator().manual_seed(seed)
    signals = torch.randn(3, samples, len(SIGNALS), generator=generator)
    signals[..., 3] = torch.rand(3, samples, generator=generator)
    errors = 0.05 * torch.exp(0.8 * signals[..., 1] + 1.0 * signals[..., 3] ** 2)
    errors[-1] = 0.0
    return signals, errors


def test_it_learns_what_the_distance_from_all_layers_follows_from():
    signals, errors = recorded()
    predicted = PredictedDistance.fitted(signals, errors)
    other, wanted = recorded(seed=1)
    found = predicted.of(other)
    assert torch.corrcoef(torch.stack([found[0].log(), wanted[0].log()]))[0, 1] > 0.97
    assert found.min() > 0.0
    assert found[0].median().item() == pytest.approx(wanted[0].median().item(), rel=0.2)


def test_a_gripper_that_differs_counts_as_a_distance():
    signals, errors = recorded()
    infinite = errors.masked_fill(signals[..., 3] > 0.9, float("inf"))
    as_distance = torch.where(infinite.isinf(), torch.tensor(GRIPPER_DISTANCE), errors)
    found, expected = (PredictedDistance.fitted(signals, each) for each in (infinite, as_distance))
    torch.testing.assert_close(found.of(signals), expected.of(signals))
    assert not torch.allclose(found.of(signals), PredictedDistance.fitted(signals, errors).of(signals))


def test_at_equal_cost_its_exits_are_nearer_to_all_layers_than_those_of_a_signal_that_tells_nothing(tiny):
    signals, errors = recorded()
    fitted = PredictedDistance.fitted(signals, errors)
    costs = CostModel(tiny.config(language={"layers": 6}))
    average = 0.6 * costs.llm_gmac(2)
    left = {}
    for name, values in (("predicted", fitted.of(signals)), ("action", signals[..., 0].exp())):
        calibration = Calibration(values, name, predicted=fitted if name == "predicted" else None)
        rule, expected = rule_for_average(calibration, costs, average, 3)
        assert expected == pytest.approx(average, rel=0.02)
        assert mean_cost(values, rule.thresholds, calibration.costs(costs, 3)) <= average
        left[name] = float(errors.gather(0, taken_exits(values, rule.thresholds)[None]).square().mean().sqrt())
    assert left["predicted"] < 0.6 * left["action"]


def clips_of(tiny, model):
    episodes = [replace(tiny.episode(9, seed=seed), instructions=(tiny.texts[0],)) for seed in range(4)]
    return [encode(model, tiny.tokenizer(model.config), episode) for episode in episodes]


def test_a_calibration_fits_it_and_records_what_a_running_policy_sees(tiny):
    torch.manual_seed(0)
    model = DeerModel(tiny.config()).eval()
    clips, rule = clips_of(tiny, model), ThresholdRule.fixed(0)
    found = calibrate(model, clips, rule, "predicted", {})
    assert found.values.shape == found.errors.shape
    again = torch.cat([replay(model, clip, rule, found.exit_criterion).values[:, 0] for clip in clips], dim=1)
    torch.testing.assert_close(found.values, again)
    plain = calibrate(model, clips, rule, "action", {})
    assert torch.equal(found.errors, plain.errors)
    assert not torch.allclose(found.values, plain.values)


def test_it_travels_with_the_checkpoint_and_decides_for_the_policy(tiny, tmp_path):
    torch.manual_seed(0)
    model = DeerModel(tiny.config(), auxiliary_heads=False).eval()
    tokenizer = tiny.tokenizer(model.config)
    calibration = calibrate(model, clips_of(tiny, model), ThresholdRule.fixed(0), "predicted", {})
    save(tmp_path / "policy.safetensors", Checkpoint(model, tokenizer, calibration))
    assert load(tmp_path / "policy.safetensors").calibration.predicted == calibration.predicted
    policy = load_policy(tmp_path / "policy.safetensors")
    policy.set_budget(Budget(average_llm_gmac=0.7 * policy.costs.llm_gmac(1)))
    assert policy.exit_rule.criterion == calibration.predicted


def test_a_criterion_without_its_fit_is_refused():
    values = torch.ones(2, 5)
    fitted = PredictedDistance.fitted(*recorded())
    for name, predicted in (("predicted", None), ("action", fitted)):
        with pytest.raises(ConfigError, match="calibrate the policy again"):
            Calibration(values, name, predicted=predicted)
    with pytest.raises(ConfigError, match="10 terms, scales above 0"):
        replace(fitted, scale=(0.0,) * 10)
    with pytest.raises(ConfigError, match="10 terms"):
        replace(fitted, weight=(1.0,))
