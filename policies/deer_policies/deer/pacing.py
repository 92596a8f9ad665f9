"""What an episode's pace leaves of an average on recorded steps, and how much more thresholds must be solved for.

A pace (`exits.Pace`) only ever saves, so thresholds that are solved for an average come out below it. They are solved
for a little more instead: as much as makes the mean of the recorded episodes, at their pace, the average asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deer_policies.deer.budget import CostModel, blind_exits
from deer_policies.deer.exits import Pace
from deer_policies.deer.thresholds import Calibration, thresholds_for_average

POINTS = 9
BISECTIONS = 12


def paced_mean(calibration: Calibration, model: CostModel, thresholds: tuple[float, ...], pace: Pace) -> float:
    """Mean cost in GMAC of the recorded steps, if every episode had followed these thresholds at this pace.

    What an exit leaves in the head's memory stays as recorded.
    """
    assert calibration.episodes is not None
    exits = len(thresholds)
    values, prices = calibration.values[:exits].numpy(), calibration.costs(model, exits).numpy()
    reference = np.array([model.llm_gmac(index) for index in range(exits)])
    _, starts, lengths = np.unique(calibration.episodes.numpy(), return_index=True, return_counts=True)
    surplus, spent = np.zeros(len(starts)), 0.0
    for step in range(lengths.max()):
        running = np.flatnonzero(lengths > step)
        columns = starts[running] + step
        eased = np.array([pace.eased(thresholds, each) for each in surplus[running]]).T
        stops = values[:, columns] <= eased
        stops[-1] = True
        taken = stops.argmax(axis=0)
        spent += prices[taken, columns].sum()
        surplus[running] += reference[taken] - pace.average_llm_gmac
    return float(spent / values.shape[1])


def corrections(calibration: Calibration, model: CostModel) -> tuple[tuple[float, float], ...]:
    """Averages over the whole range, and what thresholds must be solved for to give each; see `Calibration.paced`."""
    exits = len(calibration.values)
    costs = calibration.costs(model, exits).mean(dim=1)
    first = min(blind_exits(model.config), exits - 1)
    reference = [model.llm_gmac(index) for index in range(exits)]
    return tuple(
        (float(average), _solved_for(calibration, model, float(average), float(costs[-1]), reference))
        for average in np.linspace(float(costs[first]), float(costs[-1]), POINTS)
    )


def _solved_for(
    calibration: Calibration, model: CostModel, average: float, full: float, reference: Sequence[float]
) -> float:
    costs, blind = calibration.costs(model, len(reference)), blind_exits(model.config)
    low, high = average, full
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        thresholds, _ = thresholds_for_average(calibration.values, costs, middle, blind)
        spent = paced_mean(calibration, model, thresholds, Pace.of(thresholds, average, reference))
        low, high = (middle, high) if spent <= average else (low, middle)
    return low
