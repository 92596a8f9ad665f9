"""Scores a policy on single subtasks from random starts: parallel, resumable, the same for any number of workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError
from deer_policies.interfaces import Policy
from deer_sim import instructions
from deer_sim.environment import Environment
from deer_sim.playtable.environment import PlayTable
from deer_sim.rollout import MAX_STEPS, rollout
from deer_sim.starts import sample_start
from deer_sim.statistics import wilson_interval
from deer_sim.tasks import TASKS
from deer_sim.workers import worker_pool


@dataclass(frozen=True)
class Trial:
    """One subtask to try; its start and wording follow from these values alone (`index` numbers the starts)."""

    scene: str
    task: str
    seed: int
    index: int

    @property
    def key(self) -> str:
        """Name of the trial in result files."""
        return f"{self.scene}/{self.task}/{self.seed}/{self.index}"


@dataclass(frozen=True)
class TrialResult:
    """A trial's outcome and cost; see `deer_sim.rollout.RolloutResult` for units."""

    key: str
    task: str
    instruction: str
    success: bool
    steps: int
    exit_counts: dict[str, int]
    mean_exit_layers: float
    mean_llm_gmac: float
    full_llm_gmac: float
    mean_total_gmac: float
    full_total_gmac: float


def trials(scene: str, tasks: Sequence[str], starts: int, seed: int) -> list[Trial]:
    """All trials of an evaluation. Raises ConfigError for an unknown task."""
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise ConfigError(f"unknown tasks {unknown}; allowed are {', '.join(TASKS)}")
    return [Trial(scene, task, seed, index) for task in tasks for index in range(starts)]


def run_trial(trial: Trial, environment: Environment, policy: Policy, max_steps: int = MAX_STEPS) -> TrialResult:
    """Runs one trial with a validation wording; tasks whose start needs other subtasks first are refused.

    Raises:
        ConfigError: if the task starts with a block in the gripper, which a reset can't give.
    """
    rng = np.random.default_rng([trial.seed, trial.index, TASKS.index(trial.task)])
    start = sample_start(trial.task, trial.scene, rng)
    if start.prefix:
        raise ConfigError(f"task {trial.task} starts after {start.prefix}; score it within a sequence instead")
    wordings = instructions.validation(trial.task)
    instruction = wordings[rng.integers(len(wordings))]
    first = environment.reset(int(rng.integers(2**31)), start.robot_obs, start.scene_obs)
    result = rollout(environment, policy, trial.task, instruction, first, max_steps)
    return TrialResult(
        key=trial.key,
        task=trial.task,
        instruction=instruction,
        success=result.success,
        steps=result.steps,
        exit_counts={str(index): count for index, count in result.exit_counts.items()},
        mean_exit_layers=result.mean_exit_layers,
        mean_llm_gmac=result.mean_llm_gmac,
        full_llm_gmac=result.full_llm_gmac,
        mean_total_gmac=result.mean_total_gmac,
        full_total_gmac=result.full_total_gmac,
    )


_worker: dict[str, Any] = {}


def _start_worker(scene: str, make_policy: Callable[[], Policy]) -> None:
    _worker["environment"] = PlayTable(scene)
    _worker["policy"] = make_policy()


def _run_in_worker(trial: Trial, max_steps: int) -> TrialResult:
    return run_trial(trial, _worker["environment"], _worker["policy"], max_steps)


def evaluate(
    plan: Sequence[Trial],
    make_policy: Callable[[], Policy],
    results: Path,
    workers: int = 1,
    max_steps: int = MAX_STEPS,
) -> Iterator[TrialResult]:
    """Yields results as they come, first those that `results` (JSON lines) holds, then new ones, appended to it.

    Args:
        plan: trials of one scene.
        make_policy: builds the policy in each worker; it must be picklable.
        results: file to resume from; it must have been written with the same policy and budget.
        workers: processes.
        max_steps: limit of control steps for a trial.
    """
    done = {result.key: result for result in read_results(results)}
    for trial in plan:
        if trial.key in done:
            yield done[trial.key]
    left = [trial for trial in plan if trial.key not in done]
    if not left:
        return
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text("".join(json.dumps(asdict(result)) + "\n" for result in done.values()))
    with (
        open(results, "a") as file,
        worker_pool(workers, _start_worker, (left[0].scene, make_policy)) as pool,
    ):
        for future in as_completed([pool.submit(_run_in_worker, trial, max_steps) for trial in left]):
            result = future.result()
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()
            yield result


def read_results(path: Path) -> list[TrialResult]:
    """Results written so far; a last line cut short by a kill is dropped, to be run again."""
    if not path.exists():
        return []
    complete = path.read_text().split("\n")[:-1]
    return [TrialResult(**json.loads(line)) for line in complete]


def summarise(outcomes: Sequence[TrialResult]) -> dict[str, Any]:
    """Success with Wilson's 95 % interval per task and in all, and the mean cost of a step (steps weigh equally)."""
    steps = np.array([outcome.steps for outcome in outcomes], float)
    weights = steps / steps.sum()

    def mean(name: str) -> float:
        return float(sum(weight * getattr(outcome, name) for weight, outcome in zip(weights, outcomes, strict=True)))

    per_task = {}
    for task in dict.fromkeys(outcome.task for outcome in outcomes):
        per_task[task] = _rate([outcome for outcome in outcomes if outcome.task == task])
    return {
        "all": _rate(outcomes),
        "per_task": per_task,
        "mean_exit_layers": mean("mean_exit_layers"),
        "mean_llm_gmac": mean("mean_llm_gmac"),
        "full_llm_gmac": mean("full_llm_gmac"),
        "mean_total_gmac": mean("mean_total_gmac"),
        "full_total_gmac": mean("full_total_gmac"),
        "llm_share": mean("mean_llm_gmac") / mean("full_llm_gmac"),
        "total_share": mean("mean_total_gmac") / mean("full_total_gmac"),
    }


def _rate(outcomes: Sequence[TrialResult]) -> dict[str, Any]:
    successes = sum(outcome.success for outcome in outcomes)
    return {
        "success": successes,
        "attempts": len(outcomes),
        "rate": successes / len(outcomes),
        "interval": wilson_interval(successes, len(outcomes)),
        "mean_steps": float(np.mean([outcome.steps for outcome in outcomes])),
    }
