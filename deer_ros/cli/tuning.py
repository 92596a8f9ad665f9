"""Refines exit thresholds by Bayesian optimisation of success in simulation, less a penalty for too high a cost."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError

logger = logging.getLogger(__name__)

REACH = 0.25
"""How far from the solved shares the optimiser looks, up and down."""
PENALTY = 4.0
"""What a mean cost of twice the budget takes from the success rate; 1 % too much weighs as 4 % of the subtasks do."""
FIRST_TRIALS = 5
"""Trials before a model of the objective guides the search: the solved thresholds, then random ones."""


@dataclass(frozen=True)
class Score:
    """What a trial gave: share of the planned subtasks that were solved, and mean cost of a step in 1e9 MAC."""

    success: float
    llm_gmac: float

    def objective(self, average_llm_gmac: float) -> float:
        """Success less the penalty for a mean cost above the budget."""
        return self.success - PENALTY * max(0.0, self.llm_gmac / average_llm_gmac - 1.0)


@dataclass(frozen=True)
class Trial:
    """A finished trial: its number, the share of the steps still running that stopped at each exit, and its score."""

    number: int
    stops: tuple[float, ...]
    score: Score


def stops_from_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """Share of the steps that are still running which stop at each exit but the last, from the shares of all steps."""
    left, stops = 1.0, []
    for share in shares[:-1]:
        stops.append(min(share / left, 1.0) if left > 0.0 else 1.0)
        left -= share
    return tuple(stops)


def shares_from_stops(stops: Sequence[float]) -> list[float]:
    """The inverse of `stops_from_shares`."""
    left, shares = 1.0, []
    for stop in stops:
        shares.append(left * stop)
        left -= shares[-1]
    return [*shares, left]


def tune(
    start: Sequence[float],
    evaluate: Callable[[int, tuple[float, ...]], Score],
    trials: int,
    average_llm_gmac: float,
    folder: Path,
    settings: dict[str, Any],
) -> list[Trial]:
    """Tries thresholds until `trials` are done, those of earlier runs in the same folder included; best first.

    Args:
        start: shares in the form of `stops_from_shares`, the first to be tried.
        evaluate: scores such shares; it is given the trial's number, and called again for one that was interrupted.
        trials: how many in all.
        average_llm_gmac: the budget.
        folder: for `journal.log`, to which every step of the search is written as it happens.
        settings: what the scores depend on, plain JSON values; `settings['seed']` seeds the search too.

    Raises:
        ConfigError: if the folder holds a search with other settings.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    study = optuna.create_study(storage=storage, study_name="thresholds", direction="maximize", load_if_exists=True)
    # A sampler's random state is not in the journal; a seed for each start of the search keeps draws from repeating.
    study.sampler = optuna.samplers.GPSampler(
        seed=settings["seed"] + len(study.trials), n_startup_trials=FIRST_TRIALS, deterministic_objective=False
    )
    _check_settings(study, {**settings, "start": list(start), "average_llm_gmac": average_llm_gmac}, folder)
    names = [f"stop_{index}" for index in range(len(start))]
    if not study.trials:
        study.enqueue_trial(dict(zip(names, start, strict=True)))
    box: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(max(0.0, value - REACH), min(1.0, value + REACH))
        for name, value in zip(names, start, strict=True)
    }

    def run(number: int, params: dict[str, float]) -> None:
        score = evaluate(number, tuple(params[name] for name in names))
        study.set_user_attr(f"score {number}", asdict(score))
        study.tell(number, score.objective(average_llm_gmac))
        logger.info("trial %d: %s, objective %.4f", number, score, score.objective(average_llm_gmac))

    for interrupted in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        run(interrupted.number, interrupted.params)
    complete = (optuna.trial.TrialState.COMPLETE,)
    while len(study.get_trials(states=complete)) < trials:
        trial = study.ask(box)
        run(trial.number, trial.params)
    found = [
        Trial(
            done.number,
            tuple(done.params[name] for name in names),
            Score(**study.user_attrs[f"score {done.number}"]),
        )
        for done in study.get_trials(states=complete)
    ]
    return sorted(found, key=lambda item: -item.score.objective(average_llm_gmac))


def _check_settings(study: Any, settings: dict[str, Any], folder: Path) -> None:
    plain = json.loads(json.dumps(settings))
    before = study.user_attrs.get("settings", plain)
    if before != plain:
        different = sorted(name for name in plain.keys() | before.keys() if before.get(name) != plain.get(name))
        raise ConfigError(f"{folder} holds a search with other {', '.join(different)}; give another folder")
    study.set_user_attr("settings", plain)
