"""Recorded outcomes: they are what a policy meets step by step, for each criterion; and thresholds solved from them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.criteria import CRITERIA, action_distance
from deer_policies.deer.exits import ALWAYS, Pace, ThresholdRule, run_to_exit
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.recording import followed, outcomes
from deer_policies.deer.thresholds import Calibration, Tuned, rule_for_average, taken_exits
from deer_policies.errors import ConfigError

STEPS = 24


class Clip:
    """A model with random weights, and one clip of random images."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(4)
        self.model = DeerModel(deer_nano(), auxiliary_heads=False).eval()
        images = torch.randint(0, 256, (1, STEPS, 2, 3, 96, 96), dtype=torch.uint8, generator=generator)
        self.ids, self.mask = torch.full((1, 6), 7), torch.ones(1, 6, dtype=torch.bool)
        self.robot = torch.randn(1, STEPS, 15, generator=generator)
        with torch.inference_mode():
            self.features = self.model.features(images, self.ids, self.mask)
            self.media = [self.model.media(images[:, step]) for step in range(STEPS)]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip()


def middle_rule(clip: Clip, name: str) -> ThresholdRule:
    """Thresholds between the two middle values, so that exits vary and none is a tie."""
    everything = followed(ThresholdRule.fixed(3))
    found = outcomes(clip.model.head, clip.features, clip.robot, everything, CRITERIA[name]())
    return ThresholdRule((*found.values[:3, 0].quantile(0.5, dim=1).tolist(), ALWAYS), CRITERIA[name]())


@pytest.mark.parametrize("name", CRITERIA)
def test_a_replay_takes_the_exits_and_finds_the_distances_of_single_steps(clip, name):
    rule = middle_rule(clip, name)
    with torch.inference_mode():
        found = outcomes(clip.model.head, clip.features, clip.robot, followed(rule), CRITERIA[name]())
        state = clip.model.head.initial_state(1)
        text = clip.model.text(clip.ids, clip.mask)
        for step in range(STEPS):
            robot = clip.robot[:, step : step + 1]
            candidates, distances = run_to_exit(clip.model, text, clip.media[step], robot, state, rule, step)
            state = candidates[-1].output[2]
            taken = len(candidates) - 2
            assert found.taken[0, step] == taken
            assert distances == pytest.approx(found.values[: len(distances), 0, step].tolist(), abs=1e-6)
    torch.testing.assert_close(found.state.hidden, state.hidden, rtol=0, atol=1e-6)
    assert len(found.taken.unique()) > 1


def test_a_replay_keeps_the_pace(clip):
    llm_gmac = [2.0, 4.0, 6.0, 8.0]
    rule = replace(middle_rule(clip, "action"), pace=Pace(average_llm_gmac=3.0, slack_gmac=20.0))
    found = outcomes(clip.model.head, clip.features, clip.robot, followed(rule, llm_gmac))
    surplus = 0.0
    for step in range(STEPS):
        values, thresholds = found.values[:, :, step], rule.at_pace(surplus).thresholds
        assert found.taken[0, step] == taken_exits(values, thresholds)
        surplus += llm_gmac[int(found.taken[0, step])] - 3.0
    spent = [float(torch.tensor(llm_gmac)[found.taken[0, :count]].sum()) for count in range(1, STEPS + 1)]
    assert all(total <= 3.0 * count + 20.0 + 5.0 for count, total in enumerate(spent, 1))
    without = outcomes(clip.model.head, clip.features, clip.robot, followed(replace(rule, pace=None)))
    assert float(torch.tensor(llm_gmac)[without.taken[0]].sum()) > spent[-1]


def test_errors_are_distances_from_the_last_exit_on_the_same_state(clip):
    rule = middle_rule(clip, "action")
    with torch.inference_mode():
        found = outcomes(clip.model.head, clip.features, clip.robot, followed(rule))
        first = [clip.model.head(feature[:, :1], clip.robot[:, :1]) for feature in clip.features[1:]]
    poses = torch.stack([pose[:, 0] for pose, _, _ in first])
    torch.testing.assert_close(found.pose_errors[:, :, 0], action_distance(poses, poses[-1]), rtol=0, atol=1e-6)
    opens = torch.stack([logit[:, 0] > 0 for _, logit, _ in first])
    assert torch.equal(found.gripper_errors[:, :, 0], (opens != opens[-1]).any(-1))
    assert (found.pose_errors[:3] > 0).all()
    assert (found.pose_errors[3] == 0).all()
    assert not found.gripper_errors[3].any()


def test_a_gripper_command_that_is_not_the_last_exits_is_an_error_wherever_in_the_chunk_it_is(clip):
    head = copy.deepcopy(clip.model.head)
    everything = followed(ThresholdRule.fixed(3))
    with torch.inference_mode():
        logits = torch.stack([head(feature, clip.robot)[1] for feature in clip.features[1:]])
        # The first two commands are the same everywhere, the third one is close to the edge.
        head.gripper[-1].bias += torch.tensor([50.0, 50.0, -logits[..., 2].median()])
        found = outcomes(head, clip.features, clip.robot, everything)
        last = torch.stack([head(feature, clip.robot)[1][..., 2] > 0.0 for feature in clip.features[1:]])[:, :, 0]
    assert torch.equal(found.gripper_errors[:, :, 0], last != last[-1])
    assert found.gripper_errors[:3].any()


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_an_average_is_met_with_every_criterion(clip, name, share):
    found = outcomes(clip.model.head, clip.features, clip.robot, followed(middle_rule(clip, name)), CRITERIA[name]())
    costs = CostModel(clip.model.config)
    calibration = Calibration(found.values[:, 0], name)
    average = share * costs.llm_gmac(3)
    rule, expected = rule_for_average(calibration, costs, average, 4)
    assert rule.criterion == CRITERIA[name]()
    assert average - costs.llm_gmac(0) * 6 / STEPS <= expected <= average


def test_exits_grow_with_time():
    values = torch.arange(40.0).repeat(4, 3)
    rule, _ = rule_for_average(
        Calibration(values, "time"), CostModel(deer_nano()), 0.6 * CostModel(deer_nano()).llm_gmac(3), 4
    )
    taken = taken_exits(values[:, :40], rule.thresholds)
    assert (taken.diff() >= 0).all()
    assert len(taken.unique()) == 4


def test_steps_are_priced_at_the_length_of_their_own_instructions():
    costs, values = CostModel(deer_nano()), torch.rand(4, 100, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([9, 21]).repeat(50)
    priced = Calibration(values, tokens=tokens).costs(costs, 4)
    assert priced[2, :2].tolist() == pytest.approx([costs.llm_gmac(2, 9), costs.llm_gmac(2, 21)])
    average = 0.6 * float(priced[3].mean())
    long, short = (
        rule_for_average(Calibration(values, tokens=length), costs, average, 4)[0].thresholds
        for length in (torch.full((100,), 21), torch.full((100,), 9))
    )
    assert taken_exits(values, long).sum() < taken_exits(values, short).sum()


def test_tuned_thresholds_are_taken_for_their_average_only():
    values, costs = torch.rand(4, 100, generator=torch.Generator().manual_seed(0)), CostModel(deer_nano())
    average = 0.6 * costs.llm_gmac(3)
    tuned = Calibration(values, tuned=(Tuned(average, (0.9, 0.1, 0.1, ALWAYS)),))
    rule, expected = rule_for_average(tuned, costs, average, 4)
    assert rule.thresholds == (0.9, 0.1, 0.1, ALWAYS)
    assert expected < 0.5 * costs.llm_gmac(3)
    for other in ((1.01 * average, 4), (average, 3)):
        assert rule_for_average(tuned, costs, *other)[0].thresholds[0] != 0.9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tokens": torch.ones(9)}, "tokens have shape"),
        ({"errors": torch.ones(1, 10)}, "errors have shape"),
        ({"episodes": torch.ones(1, 10)}, "episodes have shape"),
        ({"tuned": (Tuned(1.0, (0.1, ALWAYS)),)}, "one for each of 4 exits"),
    ],
)
def test_parts_of_a_calibration_must_fit(given, words):
    with pytest.raises(ConfigError, match=words):
        Calibration(torch.zeros(4, 10), **given)
