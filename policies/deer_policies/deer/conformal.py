"""Thresholds with a stated bound on how far exited actions may be from those of all layers (Learn then Test)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from deer_policies.deer.exits import ALWAYS, NEVER, ThresholdRule
from deer_policies.deer.thresholds import Calibration, taken_exits
from deer_policies.errors import ConfigError

logger = logging.getLogger(__name__)

SETTINGS = 101
"""Thresholds that are tried, from the most cautious to the boldest."""
SPLIT_SEED = 0
"""Of the draw of the episodes that thresholds are designed on; the others test them."""


@dataclass(frozen=True)
class Promise:
    """With confidence 1 - delta, the action is within epsilon of all layers' on at least 1 - alpha of the steps.

    Attributes:
        epsilon: largest root mean square distance of the pose, in units of the normalised action; the gripper's
            command must be the same.
        alpha: share of the steps that may break this.
        delta: chance, over the draw of the calibration episodes, that more steps than that do.
    """

    epsilon: float
    alpha: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0.0:
            raise ConfigError(f"epsilon is {self.epsilon}; it is a distance of actions and must be above 0")
        for name in ("alpha", "delta"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be between 0 and 1, for example 0.1")

    @property
    def episodes_needed(self) -> int:
        """Test episodes without a single broken step that certify it; with fewer nothing can."""
        return math.ceil(math.log(self.delta) / math.log1p(-self.alpha))


def p_value(losses: torch.Tensor, alpha: float) -> float:
    """How likely losses as small as these are if their mean is above `alpha`: the Hoeffding-Bentkus bound.

    Valid for independent losses in [0, 1] of any distribution (Bates et al. 2021, arXiv 2101.02703; as a p-value in
    Angelopoulos et al. 2021, arXiv 2110.01052).

    Args:
        losses: (episodes,) in [0, 1].
        alpha: the mean that is to be refuted.
    """
    count, mean = len(losses), float(losses.double().mean())
    low = min(mean, alpha)
    divergence = (1.0 - low) * math.log((1.0 - low) / (1.0 - alpha))
    if low > 0.0:
        divergence += low * math.log(low / alpha)
    hoeffding = math.exp(-count * divergence)
    # The mean of a whole number of losses must not be rounded up to the next one.
    bentkus = math.e * _binomial_cdf(math.ceil(count * mean - 1e-9), count, alpha)
    return min(hoeffding, bentkus, 1.0)


def _binomial_cdf(successes: int, trials: int, rate: float) -> float:
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        for k in range(min(successes, trials) + 1)
    ]  # fmt: skip
    return math.fsum(math.exp(value) for value in logs)


def certified(losses: torch.Tensor, promise: Promise) -> int:
    """How many settings, from the first on, keep the promise with confidence 1 - delta, all of them together.

    Fixed-sequence testing: the settings are tested in an order that was fixed beforehand, each at level delta, until
    the first that fails (Angelopoulos et al. 2021, arXiv 2110.01052). Taking the boldest setting whose mean loss looks
    small enough instead breaks the promise far more often than delta allows.

    Args:
        losses: (settings, episodes), share of an episode's steps that break the promise; the most cautious setting
            first. Episodes are independent draws; the steps of one are not, which is why a whole episode counts as one.
        promise: alpha and delta.
    """
    for index, row in enumerate(losses):
        if p_value(row, promise.alpha) > promise.delta:
            return index
    return len(losses)


def cautious_thresholds(values: torch.Tensor, broken: torch.Tensor, share: float) -> tuple[float, ...]:
    """The largest thresholds at which, of the samples that stop at an exit, at most `share` are broken there.

    Solved from the shallowest exit on, each on the samples that are still running. 0 is the most cautious.

    Args:
        values: (exits, samples), the criterion's.
        broken: (exits, samples) bool, whether stopping there breaks the promise.
        share: from 0 to 1.
    """
    alive = torch.ones(values.shape[1], dtype=torch.bool)
    thresholds = []
    for row, bad in zip(values[:-1], broken[:-1], strict=True):
        ordered, order = row[alive].sort()
        rate = bad[alive][order].double().cumsum(0) / torch.arange(1, len(ordered) + 1)
        # Equal values stop together, so a threshold is only ever the last of them.
        last_of_equals = torch.cat([ordered[1:] > ordered[:-1], torch.ones(min(len(ordered), 1), dtype=torch.bool)])
        allowed = ordered[(rate <= share) & last_of_equals]
        thresholds.append(float(allowed[-1]) if len(allowed) else NEVER)
        alive &= row > thresholds[-1]
    return (*thresholds, ALWAYS)


def episode_losses(broken: torch.Tensor, episodes: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """Share of each episode's steps that break the promise at the exits taken: (distinct episodes,) float64.

    Args:
        broken: (exits, samples) bool.
        episodes: (samples,) int64, the episode of each sample.
        taken: (samples,) int64.
    """
    _, position, steps = episodes.unique(return_inverse=True, return_counts=True)
    bad = broken.gather(0, taken[None])[0].double()
    return torch.zeros(len(steps), dtype=torch.float64).index_add(0, position, bad) / steps


def conformal_rule(calibration: Calibration, promise: Promise) -> ThresholdRule:
    """The boldest thresholds that are certified to keep a promise; all layers, which always do, if none are.

    Half of the episodes, drawn at random, design a sequence of thresholds, from cautious to bold; the other half tests
    it (`certified`). The promise is about a step drawn at random from a new episode of the kind that was recorded: the
    same tasks, and a policy that acts much as it will act. `deer calibrate --conformal` therefore records the policy
    while it acts under these very thresholds, and reports the share of broken steps on further episodes.

    Raises:
        ConfigError: if distances from the last exit's action were not recorded.
    """
    settings, losses = designed_settings(calibration, promise)
    count = certified(losses, promise)
    if losses.shape[1] < promise.episodes_needed:
        logger.warning(
            "%d test episodes can't certify %s, so all layers run; calibrate with at least %d episodes",
            losses.shape[1],
            promise,
            2 * promise.episodes_needed,
        )
    if count == 0:
        return ThresholdRule.fixed(len(calibration.values) - 1)
    return ThresholdRule(settings[count - 1], calibration.exit_criterion)


def designed_settings(calibration: Calibration, promise: Promise) -> tuple[list[tuple[float, ...]], torch.Tensor]:
    """Thresholds designed on one half of the episodes, from cautious to bold, and their losses on the other half.

    Returns:
        thresholds of each setting, and (settings, episodes) float64 as `certified` takes them.

    Raises:
        ConfigError: see `conformal_rule`.
    """
    if calibration.errors is None or calibration.episodes is None:
        raise ConfigError(
            "this policy's calibration has no distances from the last exit's action; record them with `deer calibrate`"
        )
    values, broken, episodes = calibration.values, calibration.errors > promise.epsilon, calibration.episodes
    designing = _designing(episodes)
    # Squares, because the shares that matter are about alpha and below.
    shares = [(index / (SETTINGS - 1)) ** 2 for index in range(SETTINGS)]
    settings = [cautious_thresholds(values[:, designing], broken[:, designing], share) for share in shares]
    testing = ~designing
    losses = torch.stack(
        [
            episode_losses(broken[:, testing], episodes[testing], taken_exits(values[:, testing], thresholds))
            for thresholds in settings
        ]
    )
    return settings, losses


def _designing(episodes: torch.Tensor) -> torch.Tensor:
    """(samples,) bool, True for the steps of a random half of the episodes."""
    names, position = episodes.unique(return_inverse=True)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return (order < len(names) // 2)[position]
