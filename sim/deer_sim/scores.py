"""What results say: average length, rates with their intervals, the exits taken and the compute spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from deer_sim.instructions import GROUPS, group_of
from deer_sim.results import ChainResult, SubtaskResult
from deer_sim.statistics import bootstrap_ratio, wilson_interval

SEED = 0
"""Of the bootstrap, so that the same results give the same report."""


def summarise(results: Sequence[ChainResult]) -> dict[str, Any]:
    """The figures of an evaluation, as plain JSON values.

    Intervals are 95 %: bootstrapped over chains, since the subtasks of one are no independent trials; `wilson` is
    Wilson's interval of a task's attempts taken as independent, which unlike the other one tells something where all
    of few attempts agree. Costs are means over steps, in 1e9 multiply-accumulates; None where nothing was reported.

    Args:
        results: of an evaluation, at least one; their order does not matter.
    """
    results = sorted(results, key=lambda result: result.key)
    tried = [subtask for result in results for subtask in result.subtasks]
    solved = np.array([result.solved for result in results])
    per_position = {}
    for position in range(1, max(result.planned for result in results) + 1):
        reached = (solved >= position).astype(float)
        per_position[str(position)] = {
            "success": int(reached.sum()),
            "attempts": len(results),
            "rate": float(reached.mean()),
            "interval": _interval(reached, np.ones(len(results))),
        }
    full = _mean(tried, "full_llm_gmac")
    report: dict[str, Any] = {
        "average_length": float(solved.mean()),
        "average_length_interval": _interval(solved.astype(float), np.ones(len(results))),
        "per_position": per_position,
        "per_task": _per_task(results, tried),
        "llm_share": None,
        "total_share": None,
        "sequences": len(results),
        "all": _rate(tried),
        "per_wording": _per_wording(results),
    }
    if full:
        report["llm_share"] = _mean(tried, "mean_llm_gmac") / full
        report["total_share"] = _mean(tried, "mean_total_gmac") / _mean(tried, "full_total_gmac")
    names = ("mean_exit_layers", "mean_llm_gmac", "full_llm_gmac", "mean_total_gmac", "full_total_gmac")
    report.update({name: _mean(tried, name) if full else None for name in names})
    report["exit_counts"] = _exit_counts(tried)
    return report


def _per_task(results: Sequence[ChainResult], tried: Sequence[SubtaskResult]) -> dict[str, Any]:
    table = {}
    for task in sorted({subtask.task for subtask in tried}):
        attempts = [subtask for subtask in tried if subtask.task == task]
        chances = np.array([sum(subtask.task == task for subtask in result.subtasks) for result in results], float)
        solved = [sum(subtask.success for subtask in result.subtasks if subtask.task == task) for result in results]
        table[task] = {
            **_rate(attempts),
            "interval": _interval(np.array(solved, float), chances),
            "exit_counts": _exit_counts(attempts),
            "mean_llm_gmac": _mean(attempts, "mean_llm_gmac"),
            "full_llm_gmac": _mean(attempts, "full_llm_gmac"),
        }
    return table


def _per_wording(results: Sequence[ChainResult]) -> dict[str, Any]:
    """Rates by group of our own wordings; empty where there are fewer than two groups."""
    table = {}
    for group in GROUPS:
        tried = [[item for item in result.subtasks if group_of(item.instruction) == group] for result in results]
        attempts = [item for items in tried for item in items]
        if attempts:
            chances = np.array([len(items) for items in tried], float)
            solved = np.array([sum(item.success for item in items) for items in tried], float)
            table[group] = {**_rate(attempts), "interval": _interval(solved, chances)}
    return table if len(table) > 1 else {}


def _rate(attempts: Sequence[SubtaskResult]) -> dict[str, Any]:
    successes = sum(attempt.success for attempt in attempts)
    return {
        "success": successes,
        "attempts": len(attempts),
        "rate": successes / len(attempts),
        "wilson": wilson_interval(successes, len(attempts)),
        "mean_steps": float(np.mean([attempt.steps for attempt in attempts])),
    }


def _exit_counts(attempts: Iterable[SubtaskResult]) -> dict[str, int]:
    """Steps at each exit, by exit index."""
    counts: Counter[str] = Counter()
    for attempt in attempts:
        counts.update(attempt.exit_counts)
    return dict(sorted(counts.items(), key=lambda item: int(item[0])))


def _mean(attempts: Sequence[SubtaskResult], name: str) -> float:
    """Mean over steps, which weigh equally."""
    steps = np.array([attempt.steps for attempt in attempts], float)
    return float(np.array([getattr(attempt, name) for attempt in attempts]) @ steps / steps.sum())


def _interval(successes: np.ndarray, attempts: np.ndarray) -> tuple[float, float]:
    return bootstrap_ratio(successes, attempts, np.random.default_rng(SEED))
