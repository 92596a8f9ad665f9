"""Measured time of a step at fixed exits and under budgets, in one run: all of them step every observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deer_policies.deer.exits import ExitRule
from deer_policies.deer.policy import DeerPolicy
from deer_policies.interfaces import Observation
from deer_sim.statistics import bootstrap_ratio

SEED = 0
"""Of the bootstrap."""
WARM_UP_STEPS = 5
"""Of each episode; the first ones also embed the instruction."""


@dataclass(frozen=True)
class Timed:
    """Steps under one rule.

    Attributes:
        p50_ms, mean_ms: wall time of a step.
        ratio: mean time against that of all layers, beside which each step was measured.
        ratio_interval: 95 %, bootstrapped over episodes.
        llm_share, total_share: computation against all layers.
    """

    p50_ms: float
    mean_ms: float
    ratio: float
    ratio_interval: tuple[float, float]
    llm_share: float
    total_share: float


def timed(
    policy: DeerPolicy, rules: Mapping[str, ExitRule], everything: str, episodes: Sequence[Sequence[Observation]]
) -> dict[str, Timed]:
    """Steps the policy under each rule on the same observations, in turns, so that all meet the same load.

    Args:
        policy: on any device.
        rules: by name; each keeps a recurrent state of its own.
        everything: the name of the rule that runs all layers.
        episodes: longer than `WARM_UP_STEPS`.
    """
    sums: dict[str, list[float]] = {name: [] for name in rules}
    steps: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rules}
    for episode in episodes:
        states = {name: policy.initial_state() for name in rules}
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rules}
        for number, observation in enumerate(episode):
            # Whoever comes first finds the caches cold; that goes round.
            order = list(np.roll(list(rules), number))
            for name in order:
                policy.set_exit_rule(rules[name])
                _, states[name], report = policy.step(observation, states[name])
                shares = (report.llm_gmac / report.full_llm_gmac, report.total_gmac / report.full_total_gmac)
                taken[name].append((report.latency_ms, *shares))
        for name in rules:
            kept = taken[name][WARM_UP_STEPS:]
            steps[name] += kept
            sums[name].append(sum(latency_ms for latency_ms, _, _ in kept))
    whole = np.array(sums[everything])
    found = {}
    for name, rows in steps.items():
        latencies, llm, total = np.array(rows).T
        interval = bootstrap_ratio(np.array(sums[name]), whole, np.random.default_rng(SEED))
        ratio = float(np.sum(sums[name]) / whole.sum())
        found[name] = Timed(
            float(np.median(latencies)),
            float(latencies.mean()),
            ratio,
            interval,
            float(llm.mean()),
            float(total.mean()),
        )
    return found
