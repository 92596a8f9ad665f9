"""Exit thresholds: criterion values on recorded data, and the thresholds that meet an average cost on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from deer_policies.deer.action_head import ActionHead, HeadState
from deer_policies.deer.budget import CostModel, blind_exits, enough, within
from deer_policies.deer.criteria import CRITERIA, PREDICTED, ExitCriterion, checked_criterion
from deer_policies.deer.exits import ALWAYS, NEVER, Pace, ThresholdRule
from deer_policies.deer.predicted_distance import PredictedDistance
from deer_policies.deer.recording import outcomes
from deer_policies.errors import BudgetError, ConfigError

BISECTIONS = 40
LARGEST_LOG_RATIO = 20.0
SHARE_ROUNDING = 1e-9


@dataclass(frozen=True)
class Tuned:
    """Thresholds that were refined in the simulator for one average budget, in 1e9 MAC."""

    average_llm_gmac: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """Criterion values that thresholds are solved from.

    Attributes:
        values: (exits, samples) float32.
        criterion: name in `criteria.CRITERION_NAMES`.
        source: which data, and what average they gave on other data, for reports.
        tokens: (samples,) int64, length of the instruction at each step; None counts each at the reference length.
        errors: (exits, samples) float32, root mean square distance of each exit's pose from the last exit's, infinite
            where the gripper's command differs; None where they were not recorded.
        episodes: (samples,) int64, the episode that each step belongs to; None where it was not recorded.
        tuned: thresholds that are taken instead of solved ones when their average is asked for.
        paced: averages, growing, each with what thresholds must be solved for so that episodes at their pace give it;
            see `pacing.corrections`. Without any, thresholds are solved for the average itself.
        predicted: the fitted criterion, with 'predicted' only.
    """

    values: torch.Tensor
    criterion: str = "action"
    source: dict[str, Any] = field(default_factory=dict)
    tokens: torch.Tensor | None = None
    errors: torch.Tensor | None = None
    episodes: torch.Tensor | None = None
    tuned: tuple[Tuned, ...] = ()
    paced: tuple[tuple[float, float], ...] = ()
    predicted: PredictedDistance | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or 0 in self.values.shape or not bool(torch.isfinite(self.values).all()):
            raise ConfigError(
                f"criterion values have shape {tuple(self.values.shape)}; they must be finite numbers (exits, samples)"
            )
        if (checked_criterion(self.criterion) == PREDICTED) != (self.predicted is not None):
            raise ConfigError(
                f"criterion {self.criterion!r} with the fitted one {self.predicted}: {PREDICTED!r} needs one and the "
                "others have none; calibrate the policy again"
            )
        exits, samples = self.values.shape
        for name, shape in (("tokens", (samples,)), ("errors", (exits, samples)), ("episodes", (samples,))):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape != shape:
                raise ConfigError(f"calibration {name} have shape {tuple(tensor.shape)}; the values call for {shape}")
        for tuned in self.tuned:
            if len(tuned.thresholds) != exits:
                raise ConfigError(
                    f"tuned thresholds are {tuned.thresholds}; there must be one for each of {exits} exits"
                )

    @property
    def exit_criterion(self) -> ExitCriterion:
        """What gives the values while the policy runs."""
        return CRITERIA[self.criterion]() if self.predicted is None else self.predicted

    @property
    def checked(self) -> str:
        """What thresholds gave on steps that they were not solved from, as an addition to a sentence; '' if unknown."""
        source = self.source
        if "achieved_llm_gmac" not in source:
            return ""
        return (
            f"; {source['achieved_llm_gmac']:.4g} were measured where {source['requested_llm_gmac']:.4g} were asked "
            f"for, on {source['check_episodes']} other episodes"
        )

    def solved_for(self, average_llm_gmac: float, exits: int) -> float:
        """What thresholds must be solved for to give an average at the pace of the episodes; see `paced`."""
        if not self.paced or exits < len(self.values):
            return average_llm_gmac
        asked, solved = zip(*self.paced, strict=True)
        if not asked[0] <= average_llm_gmac <= asked[-1]:
            return average_llm_gmac
        return float(np.interp(average_llm_gmac, asked, solved))

    def costs(self, model: CostModel, exits: int) -> torch.Tensor:
        """Cost of the language model at each step if it stopped at each of the first exits: (exits, samples), GMAC."""
        if self.tokens is None:
            column = [[model.llm_gmac(index)] for index in range(exits)]
            return torch.tensor(column, dtype=torch.float64).expand(-1, self.values.shape[1])
        lengths, position = self.tokens.unique(return_inverse=True)
        table = [[model.llm_gmac(index, int(length)) for length in lengths] for index in range(exits)]
        return torch.tensor(table, dtype=torch.float64)[:, position]


def rule_for_average(
    calibration: Calibration, model: CostModel, average_llm_gmac: float, exits: int
) -> tuple[ThresholdRule, float]:
    """The rule whose mean cost is the highest that is not above an average, tuned for it or solved; at its pace.

    Args:
        calibration: recorded values.
        model: prices the exits.
        average_llm_gmac: mean cost of a step, in 1e9 MAC.
        exits: how many are in use, from the shallowest.

    Returns:
        The rule, and its mean cost on the recorded steps.

    Raises:
        BudgetError: if even the cheapest exit costs more; with what it costs.
    """
    costs = calibration.costs(model, exits)
    thresholds = next(
        (
            tuned.thresholds
            for tuned in calibration.tuned
            if exits == len(tuned.thresholds) and math.isclose(tuned.average_llm_gmac, average_llm_gmac)
        ),
        None,
    )
    if thresholds is None:
        solved_for = calibration.solved_for(average_llm_gmac, exits)
        thresholds, expected = thresholds_for_average(calibration.values, costs, solved_for, blind_exits(model.config))
        expected = min(expected, average_llm_gmac)
    else:
        expected = mean_cost(calibration.values, thresholds, costs)
    pace = Pace.of(thresholds, average_llm_gmac, [model.llm_gmac(index) for index in range(exits)])
    return ThresholdRule(thresholds, calibration.exit_criterion, pace), expected


def action_values(
    head: ActionHead,
    features: torch.Tensor,
    proprioception: torch.Tensor | None,
    exits: torch.Tensor,
    state: HeadState | None = None,
) -> tuple[torch.Tensor, HeadState]:
    """Distance of each exit's action from that of the exit before, on the history of given exits.

    Args:
        head, features, proprioception, state: see `recording.outcomes`.
        exits: (batch, window) int64, the exit whose state is kept at each step.

    Returns:
        values (exits, batch, window) float32, and the state after the window.
    """
    found = outcomes(head, features, proprioception, lambda _, step: exits[:, step], state=state)
    return found.values, found.state


def exit_shares(ratio: float, exits: int, kind: str = "exp", blind: int = 0) -> list[float]:
    """Wanted share of steps at each exit.

    Args:
        ratio: for 'exp', share k is proportional to ratio^k: below 1 favours early exits, above 1 late ones; for
            'gauss' the favoured position from 0; for 'gamma' the shape, with scale 2.
        exits: how many are in use.
        kind: 'exp', 'gauss' or 'gamma' (DeeR's three families).
        blind: so many first exits get nothing because no layer before them has seen the images.
    """
    positions = range(1, exits + 1)
    if kind == "exp":
        logs = [k * math.log(ratio) for k in positions]
    elif kind == "gauss":
        logs = [-((k - 1 - ratio) ** 2) / 2.0 for k in positions]
    elif kind == "gamma":
        logs = [(ratio - 1.0) * math.log(k) - k / 2.0 for k in positions]
    else:
        raise ConfigError(f"there is no family of exit shares {kind!r}; choose exp, gauss or gamma")
    largest = max(logs[min(blind, exits - 1) :])
    weights = [0.0 if k < min(blind, exits - 1) else math.exp(value - largest) for k, value in enumerate(logs)]
    total = sum(weights)
    return [weight / total for weight in weights]


def solve_thresholds(values: torch.Tensor, shares: Sequence[float]) -> tuple[float, ...]:
    """Thresholds that send these shares of the samples to each exit (DeeR, section 3.3).

    From the shallowest exit on, the threshold is the value below which the wanted number of the samples that are
    still running lies; so thresholds are no quantiles of the whole data and need not grow or fall with depth.

    Args:
        values: (exits or more, samples); the first len(shares) rows are used.
        shares: of each exit in use, adding up to 1.
    """
    samples = values.shape[1]
    alive = torch.ones(samples, dtype=torch.bool)
    thresholds = []
    for row, share in zip(values, shares[:-1], strict=False):
        # A share that is meant as 0.4 may be a last bit less; of 500 samples it is 200 all the same.
        wanted = math.floor(samples * share * (1.0 + SHARE_ROUNDING))
        running = row[alive].sort().values
        if wanted == 0 or wanted > len(running):
            thresholds.append(NEVER)
            continue
        thresholds.append(float(running[wanted - 1]))
        alive &= row > running[wanted - 1]
    return (*thresholds, ALWAYS)


def taken_exits(values: torch.Tensor, thresholds: Sequence[float]) -> torch.Tensor:
    """The exit (samples,) at which these thresholds stop each sample (column of `values`)."""
    stops = values[: len(thresholds)] <= torch.tensor(thresholds)[:, None]
    stops[-1] = True
    return stops.int().argmax(dim=0)


def achieved_shares(values: torch.Tensor, thresholds: Sequence[float]) -> list[float]:
    """Share of the samples (columns of `values`) that these thresholds stop at each exit in use."""
    counts = taken_exits(values, thresholds).bincount(minlength=len(thresholds))
    return (counts / values.shape[1]).tolist()


def mean_cost(values: torch.Tensor, thresholds: Sequence[float], costs: torch.Tensor) -> float:
    """Mean over the samples of the cost (exits, samples) of the exits that these thresholds take."""
    return float(costs.gather(0, taken_exits(values, thresholds)[None]).mean())


def thresholds_for_average(
    values: torch.Tensor, costs: torch.Tensor | Sequence[float], average: float, blind: int = 0
) -> tuple[tuple[float, ...], float]:
    """Thresholds with the highest average cost that is not above `average` on the values, by bisection of the ratio.

    Args:
        values: (exits or more, samples).
        costs: (exits,) or (exits, samples), of a step that stops at each exit in use, growing with depth.
        average: wanted mean cost, in the unit of `costs`.
        blind: first exits that are never taken; see `exit_shares`.

    Returns:
        thresholds and the mean cost that they have on the values.

    Raises:
        BudgetError: if even always taking the first usable exit costs more.
    """
    table = torch.as_tensor(costs, dtype=torch.float64)
    table = (table[:, None] if table.ndim == 1 else table).expand(-1, values.shape[1])
    exits = len(table)
    first = min(blind, exits - 1)
    cheapest, full = float(table[first].mean()), float(table[-1].mean())
    if not within(cheapest, average):
        raise BudgetError(
            f"an average of {average:.6g} is below the cheapest exit's {enough(cheapest)}; ask for that or more"
        )
    if average >= full:
        return (NEVER,) * (exits - 1) + (ALWAYS,), full
    best = ((NEVER,) * first + (ALWAYS,) * (exits - first), cheapest)
    low, high = -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        thresholds = solve_thresholds(values, exit_shares(math.exp(middle), exits, blind=blind))
        cost = mean_cost(values, thresholds, table)
        if cost <= average:
            low = middle
            best = max(best, (thresholds, cost), key=lambda solution: solution[1])
        else:
            high = middle
    return best
