"""What an episode's pace leaves of an average on recorded steps, and how much more thresholds must be solved for.

A pace (`exits.Pace`) only ever saves, so thresholds that are solved for an average come out below it. They are solved
for a little more instead: as much as makes the mean of the recorded episodes, at their pace, the average asked for.
"""

from __future__ import annotations

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
    costs = calibration.costs(model, len(calibration.values)).mean(dim=1)
    first = min(blind_exits(model.config), len(costs) - 1)
    averages = np.linspace(float(costs[first]), float(costs[-1]), POINTS).tolist()
    return tuple((average, solved_for(calibration, model, average)) for average in averages)


def solved_for(calibration: Calibration, model: CostModel, average_llm_gmac: float) -> float:
    """The average in GMAC that thresholds must be solved for, so that the recorded episodes at their pace give this."""
    exits = len(calibration.values)
    costs, reference = calibration.costs(model, exits), [model.llm_gmac(index) for index in range(exits)]
    low, high = average_llm_gmac, float(costs[-1].mean())
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        thresholds, _ = thresholds_for_average(calibration.values, costs, middle, blind_exits(model.config))
        spent = paced_mean(calibration, model, thresholds, Pace.of(thresholds, average_llm_gmac, reference))
        low, high = (middle, high) if spent <= average_llm_gmac else (low, middle)
    return low
