"""Reuse of views: what counts as unchanged, that work really stops, and that the report tells what ran."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.deer.view_reuse import EncodedViews, ViewReuse, views_to_encode, with_encoded
from deer_policies.errors import ConfigError
from deer_policies.interfaces import Observation
from deer_ros.cli.eval import make_policy


class Encoder:
    """Stands in for the vision segment: the mean pixel of an image as its only latent; counts images."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return images.float().mean((1, 2, 3))[:, None, None]


def frames(*values: int) -> torch.Tensor:
    """Views (views, 3, 4, 4), each of one grey value."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).clone()


def encode_views(images, before, reuse: ViewReuse, encoder: Encoder) -> EncodedViews:
    """One step's encoding, as the policy does it."""
    fresh = views_to_encode(images, before, reuse)
    return with_encoded(images, before, fresh, encoder(images[fresh]) if fresh else None)


def run(reuse: ViewReuse, *steps: tuple[int, ...]) -> tuple[list[tuple[bool, ...]], EncodedViews, Encoder]:
    """Which views each step encoded, what the last one gave, and the encoder."""
    encoder, views, encoded = Encoder(), None, []
    for values in steps:
        views = encode_views(frames(*values), views, reuse, encoder)
        encoded.append(views.encoded)
    return encoded, views, encoder


def test_only_the_view_that_changed_is_encoded():
    encoded, views, encoder = run(ViewReuse(5.0), (100, 50), (104, 60), (104, 60))
    assert encoded == [(True, True), (False, True), (False, False)]
    assert views.latents.flatten().tolist() == [100.0, 60.0]
    assert encoder.images == 3


def test_a_slow_drift_is_seen():
    """Each step changes less than the bound; against the step before, none of them would ever be encoded."""
    reuse, often = ViewReuse(5.0, most_steps=100), [True, False, False, True, False, False, True]
    alone, _, _ = run(reuse, *[(2 * step,) for step in range(7)])
    assert [first for (first,) in alone] == often
    beside_another, _, _ = run(reuse, *[(2 * step, 30 * step) for step in range(7)])
    assert beside_another == [(first, True) for first in often]


def test_a_view_is_not_reused_for_ever():
    encoded, _, _ = run(ViewReuse(5.0, most_steps=2), *[(7,)] * 7)
    assert encoded == [(True,), (False,), (False,)] * 2 + [(True,)]


def test_the_bound_itself_is_a_change_and_darker_counts_as_brighter():
    assert run(ViewReuse(5.0), (100, 100, 255), (105, 95, 0))[0][1] == (True, True, True)
    assert run(ViewReuse(5.0), (100, 100, 255), (104, 96, 255))[0][1] == (False, False, False)


def test_nothing_is_reused_unless_asked_for_and_the_least_bound_asks_for_equal_pixels():
    assert run(ViewReuse(), (9, 9), (9, 9))[0][1] == (True, True)
    encoder = Encoder()
    before = encode_views(frames(9, 9), None, ViewReuse(1e-6), encoder)
    one_pixel = frames(9, 9)
    one_pixel[1, 0, 0, 0] += 1
    assert encode_views(one_pixel, before, ViewReuse(1e-6), encoder).encoded == (False, True)


def test_what_the_step_before_gave_is_not_changed_in_place():
    first = encode_views(frames(1, 2), None, ViewReuse(5.0), Encoder())
    encode_views(frames(1, 200), first, ViewReuse(5.0), Encoder())
    assert torch.equal(first.images, frames(1, 2))
    assert first.latents.flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("wrong", [{"below": -1.0}, {"below": 256.0}, {"below": float("nan")}, {"most_steps": 0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match="views are reused"):
        ViewReuse(**{"below": 1.0, **wrong})


@pytest.fixture(scope="module")
def policy() -> DeerPolicy:
    torch.manual_seed(0)
    return DeerPolicy(DeerModel(deer_nano()), Tokenizer.train(["open the drawer"], 300, max_tokens=32))


def episode() -> list[Observation]:
    """The static camera sees the same three times and then something else; the gripper's camera, noise at each step."""
    rng = np.random.default_rng(0)
    static = [rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)] * 3
    static.append(255 - static[0])
    robot = rng.normal(size=15).astype(np.float32)
    return [
        Observation(image, rng.integers(0, 256, (84, 84, 3), dtype=np.uint8), robot, "open the drawer", step / 30.0)
        for step, image in enumerate(static)
    ]


def test_reports_count_what_ran(policy, monkeypatch):
    """Images that go through the encoder, and total_gmac against the operations that PyTorch counts."""
    monkeypatch.setattr(policy._stepper, "view_reuse", ViewReuse(1.0))
    policy.set_exit_rule(ThresholdRule.fixed(1))
    images: list[int] = []
    hook = policy.model.vision.register_forward_pre_hook(lambda _, given: images.append(len(given[0])))
    state, counted, reports = policy.initial_state(), [], []
    for observation in [*episode(), episode()[-1]]:
        if len(reports) == 4:
            observation = replace(observation, rgb_gripper=episode()[3].rgb_gripper)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            _, state, report = policy.step(observation, state)
        counted.append(counter.get_total_flops() / 2e9)
        reports.append(report)
    hook.remove()
    wanted = [(True, True), (False, True), (False, True), (True, True), (False, False)]
    assert [report.encoded_views for report in reports] == wanted
    assert images == [2, 1, 1, 2]
    # Resizing the images is no part of the count, and PyTorch counts no interpolation either.
    assert [report.total_gmac for report in reports] == pytest.approx(counted, rel=1e-3)
    assert len({report.full_total_gmac for report in reports}) == 1


def test_a_reused_view_is_the_image_that_was_encoded(policy, monkeypatch):
    """The step is the one that would have been taken on the older image, to rounding."""
    first, second = episode()[:2]
    moved = replace(second, rgb_static=np.clip(second.rgb_static.astype(int) + 2, 0, 255).astype(np.uint8))
    policy.set_exit_rule(ThresholdRule.fixed(3))
    actions = {}
    for bound, then in ((5.0, moved), (0.0, second), (0.0, moved)):
        monkeypatch.setattr(policy._stepper, "view_reuse", ViewReuse(bound))
        _, state, _ = policy.step(first, policy.initial_state())
        actions[bound, then is moved] = policy.step(then, state)[0].actions
    np.testing.assert_allclose(actions[5.0, True], actions[0.0, False], rtol=0, atol=1e-6)
    assert np.abs(actions[5.0, True] - actions[0.0, True]).max() > 1e-6


def test_it_can_be_switched_on_between_steps_and_a_new_subtask_looks_again(policy, monkeypatch):
    monkeypatch.setattr(policy._stepper, "view_reuse", ViewReuse())
    observation = episode()[0]
    _, state, report = policy.step(observation, policy.initial_state())
    _, state, again = policy.step(observation, state)
    policy.set_view_reuse(ViewReuse(1.0))
    _, _, reused = policy.step(observation, state)
    _, _, new = policy.step(observation, policy.initial_state())
    found = [item.encoded_views for item in (report, again, reused, new)]
    assert found == [(True, True), (True, True), (False, False), (True, True)]
    assert reused.total_gmac < 0.5 * again.total_gmac
    assert again.total_gmac == report.total_gmac == new.total_gmac


def test_deer_eval_switches_it():
    observation = episode()[0]
    encoded = []
    for below in (0.0, 1.0):
        policy = make_policy("deer-nano", "float32", below)
        state = policy.step(observation, policy.initial_state())[1]
        encoded.append(policy.step(observation, state)[2].encoded_views)
    assert encoded == [(True, True), (False, False)]
