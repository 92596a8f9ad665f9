"""Exit thresholds: criterion values on recorded data, and the thresholds that meet an average cost on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from deer_policies.deer.action_head import ActionHead, HeadState
from deer_policies.deer.exits import ALWAYS, NEVER, action_distance
from deer_policies.errors import BudgetError, ConfigError

BISECTIONS = 60
LARGEST_LOG_RATIO = 20.0
SHARE_ROUNDING = 1e-9


@dataclass(frozen=True)
class Calibration:
    """Criterion values that thresholds are solved from.

    Attributes:
        values: (exits, samples) float32.
        criterion: name in `exits.CRITERIA`.
        source: which data, for reports.
    """

    values: torch.Tensor
    criterion: str = "action"
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or 0 in self.values.shape or not bool(torch.isfinite(self.values).all()):
            raise ConfigError(
                f"criterion values have shape {tuple(self.values.shape)}; they must be finite numbers (exits, samples)"
            )


@torch.no_grad()
def action_values(
    head: ActionHead,
    features: torch.Tensor,
    proprioception: torch.Tensor | None,
    exits: torch.Tensor,
    state: HeadState | None = None,
) -> tuple[torch.Tensor, HeadState]:
    """Distance of each exit's action from that of the exit before, on histories that mix exits as they do in use.

    Args:
        head: the shared head, in evaluation mode.
        features: (exits + 1, batch, window, dim) as `DeerModel.features` gives them.
        proprioception: (batch, window, 15) or None.
        exits: (batch, window) int64, the exit whose state is kept at each step.
        state: before the window; None for the start of episodes.

    Returns:
        values (exits, batch, window) float32, and the state after the window.
    """
    entries, batch, window, dim = features.shape
    if state is None:
        state = head.initial_state(batch)
    rows = torch.arange(batch, device=features.device)
    values = []
    for step in range(window):
        robot = None if proprioception is None else proprioception[:, step : step + 1].repeat(entries, 1, 1)
        repeated = HeadState(state.hidden.repeat(1, entries, 1), state.cell.repeat(1, entries, 1))
        pose, _, after = head(features[:, :, step].reshape(entries * batch, 1, dim), robot, repeated)
        poses = pose.view(entries, batch, 6).float()
        values.append(action_distance(poses[1:], poses[:-1]))
        kept = (exits[:, step].to(features.device) + 1) * batch + rows
        state = HeadState(after.hidden[:, kept], after.cell[:, kept])
    return torch.stack(values, dim=-1), state


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


def achieved_shares(values: torch.Tensor, thresholds: Sequence[float]) -> list[float]:
    """Share of the samples (columns of `values`) that these thresholds stop at each exit in use."""
    alive = torch.ones(values.shape[1], dtype=torch.bool)
    shares = []
    for row, threshold in zip(values, thresholds, strict=False):
        stops = alive & (row <= threshold)
        shares.append(float(stops.float().mean()))
        alive &= ~stops
    return shares


def thresholds_for_average(
    values: torch.Tensor, costs: Sequence[float], average: float, blind: int = 0
) -> tuple[tuple[float, ...], float]:
    """Thresholds with the highest average cost that is not above `average` on the values, by bisection of the ratio.

    Args:
        values: (exits or more, samples).
        costs: of a step that stops at each exit in use, growing with depth.
        average: wanted mean cost, in the unit of `costs`.
        blind: first exits that are never taken; see `exit_shares`.

    Returns:
        thresholds and the mean cost that they have on the values.

    Raises:
        BudgetError: if even always taking the first usable exit costs more.
    """
    exits = len(costs)
    cheapest = costs[min(blind, exits - 1)]
    if average < cheapest:
        raise BudgetError(
            f"an average of {average:.6g} is below the cheapest exit's {cheapest:.6g}; ask for that or more"
        )

    def at(log_ratio: float) -> tuple[tuple[float, ...], float]:
        thresholds = solve_thresholds(values, exit_shares(math.exp(log_ratio), exits, blind=blind))
        shares = achieved_shares(values, thresholds)
        return thresholds, sum(share * cost for share, cost in zip(shares, costs, strict=True))

    if average >= costs[-1]:
        return (NEVER,) * (exits - 1) + (ALWAYS,), costs[-1]
    first = min(blind, exits - 1)
    best = ((NEVER,) * first + (ALWAYS,) * (exits - first), cheapest)
    low, high = -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        found = at(middle)
        if found[1] <= average:
            low = middle
            best = max(best, found, key=lambda solution: solution[1])
        else:
            high = middle
    return best
