"""What is compared in the tables: the policy, budgets, criteria, certified thresholds, and variants of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import Checkpoint, load, save
from deer_policies.deer.conformal import Promise, conformal_rule
from deer_policies.deer.thresholds import Calibration, mean_cost
from deer_policies.errors import ConfigError
from deer_ros.cli.calibration_run import CalibrationPlan, calibrate_in_simulation
from deer_sim.rollout import MAX_STEPS
from paper.cells import Cells, Scored

ALPHA, DELTA = 0.1, 0.1
"""Of the promise whose epsilon is chosen for its cost."""
SMALLEST_EPSILON, LARGEST_EPSILON = 1e-4, 1.0
BISECTIONS = 14
SAMPLINGS = ("uniform", "segments")


class LeftOut(Exception):  # noqa: N818 (it is no error)
    """Why a table, or a row of one, can't be made."""


@dataclass(frozen=True)
class Variant:
    """How the exits of a policy were trained."""

    auxiliary: bool
    samplings: tuple[str, ...]


FULL = Variant(True, SAMPLINGS)
"""The paper's training."""


@dataclass(frozen=True)
class Study:
    """One policy and where it is scored.

    Attributes:
        policy: its checkpoint.
        checkpoint: the same, loaded.
        cells: where it is scored.
        folder: for checkpoints and measurements that are made on the way.
        average_llm_gmac: the budget at which methods are compared.
        shares: further budgets of figure 3, as shares of all layers.
        workers: processes.
        tuning: options of `deer tune` for its trials and what they run, apart from what scores.
        variants: checkpoints of other trainings.
        calibration_episodes: of criteria other than the checkpoint's own; None takes as many as that had.
        calibration_max_steps: control steps after which such an episode ends.
    """

    policy: Path
    checkpoint: Checkpoint
    cells: Cells
    folder: Path
    average_llm_gmac: float
    shares: tuple[float, ...]
    workers: int
    tuning: tuple[str, ...]
    variants: tuple[Path, ...] = ()
    calibration_episodes: int | None = None
    calibration_max_steps: int = MAX_STEPS

    @property
    def calibration(self) -> Calibration:
        """The policy's. Raises ConfigError if it has none."""
        if self.checkpoint.calibration is None:
            raise ConfigError(f"{self.policy} has no calibration; make one with `deer calibrate`")
        return self.checkpoint.calibration

    @property
    def exit_gmac(self) -> list[float]:
        """Cost of the language model at each exit, for an instruction of the reference length."""
        costs = CostModel(self.checkpoint.model.config)
        return [costs.llm_gmac(index) for index in range(len(self.checkpoint.model.exit_layers))]

    def fixed(self, index: int) -> Scored:
        """Always the same exit."""
        return self.cells.scored(f"fixed-{index}", self.policy, "--fixed-exit", str(index))

    def everything(self) -> Scored:
        """All layers at every step."""
        return self.fixed(len(self.exit_gmac) - 1)

    def budget(self, average_llm_gmac: float) -> Scored:
        """DeeR under an average budget; under that of the comparisons its steps are kept, for `thinking.py`."""
        asked = f"{average_llm_gmac:.5g}"
        kept = ["--keep-steps"] if average_llm_gmac == self.average_llm_gmac else []
        return self.cells.scored(f"budget-{asked}", self.policy, "--average-llm-gmac", asked, *kept)

    def budgets(self) -> list[float]:
        """Budgets of figure 3: that of the comparisons, costs of the exits between first and last, and the shares."""
        cheapest, *between, full = self.exit_gmac
        wanted = [self.average_llm_gmac, *between, *(share * full for share in self.shares)]
        return sorted({float(f"{value:.5g}") for value in wanted if cheapest < value < full})

    def with_criterion(self, criterion: str) -> Path:
        """The policy with thresholds of a criterion: itself, or a copy that is calibrated as it was.

        Raises:
            LeftOut: if it does not tell how it was calibrated.
        """
        if criterion == self.calibration.criterion:
            return self.policy
        path = self.folder / "checkpoints" / f"{criterion}.safetensors"
        plan = self._plan(criterion)
        if path.is_file() and _calibrated(path, self.checkpoint, plan):
            return path
        print(f"== calibrating criterion {criterion}", flush=True)
        calibration = calibrate_in_simulation(self.policy, plan, self.folder / "calibration", self.workers)
        save(path, replace(self.checkpoint, calibration=calibration))
        return path

    def _plan(self, criterion: str) -> CalibrationPlan:
        source, rounds = self.calibration.source, 2
        if not {"scenes", "tasks", "episodes", "seed"} <= source.keys():
            raise LeftOut("the checkpoint's calibration does not tell what it was recorded on")
        return CalibrationPlan(
            scenes=tuple(source["scenes"]),
            tasks=tuple(source["tasks"]),
            episodes=self.calibration_episodes or source["episodes"],
            seed=source["seed"] - rounds + 1,
            criterion=criterion,
            average_llm_gmac=self.average_llm_gmac,
            max_steps=self.calibration_max_steps,
            rounds=rounds,
        )

    def promise(self) -> Promise:
        """The strictest promise that costs no more than the budget on the recorded steps.

        Raises:
            LeftOut: if nothing can be certified at that cost.
        """
        return affordable_promise(
            self.calibration, CostModel(self.checkpoint.model.config), self.average_llm_gmac, ALPHA, DELTA
        )

    def trained(self) -> dict[Variant, Path]:
        """Checkpoints by how they were trained, the policy among them unless the variants bring their own reference."""
        found: dict[Variant, Path] = {}
        for path in (self.policy, *self.variants):
            variant = variant_of(load(path).provenance, path)
            if variant in found and found[variant] != self.policy:
                raise ConfigError(f"{found[variant]} and {path} were both trained with {variant}; keep one")
            found[variant] = path
        return found


def _calibrated(path: Path, checkpoint: Checkpoint, plan: CalibrationPlan) -> bool:
    """Whether a file is this checkpoint, calibrated by this plan."""
    found = load(path)
    weights = checkpoint.model.state_dict()
    same = all(tensor.equal(weights[name]) for name, tensor in found.model.state_dict().items())
    source = {} if found.calibration is None else found.calibration.source
    return (
        same and source.get("episodes") == plan.episodes and source.get("requested_llm_gmac") == plan.average_llm_gmac
    )


def affordable_promise(
    calibration: Calibration, costs: CostModel, average_llm_gmac: float, alpha: float, delta: float
) -> Promise:
    """The promise with the smallest epsilon whose certified thresholds cost no more than this on the recorded steps.

    Raises:
        LeftOut: if there is none.
    """
    if calibration.episodes is None or calibration.errors is None:
        raise LeftOut("the calibration has no distances from all layers' action; make it again with `deer calibrate`")
    needed = 2 * Promise(1.0, alpha, delta).episodes_needed
    if len(calibration.episodes.unique()) < needed:
        raise LeftOut(f"the calibration has fewer than the {needed} episodes that certify anything")
    prices = calibration.costs(costs, len(calibration.values))
    best, low, high = None, SMALLEST_EPSILON, LARGEST_EPSILON
    for _ in range(BISECTIONS):
        promise = Promise(float(f"{(low * high) ** 0.5:.3g}"), alpha, delta)
        thresholds = conformal_rule(calibration, promise).thresholds
        if mean_cost(calibration.values, thresholds, prices) <= average_llm_gmac:
            best, high = promise, promise.epsilon
        else:
            low = promise.epsilon
    if best is None:
        raise LeftOut(f"no certified thresholds cost as little as {average_llm_gmac:.4g} GMAC a step")
    return best


def variant_of(provenance: dict[str, Any], path: Path) -> Variant:
    """How a checkpoint's recipe trained the exits. Raises ConfigError if its provenance does not tell."""
    try:
        settings = provenance["recipe"]["optimisation"]
        samplings: Sequence[str] = settings["samplings"]
        return Variant(settings["auxiliary_weight"] > 0.0, tuple(name for name in SAMPLINGS if name in samplings))
    except KeyError as error:
        raise ConfigError(f"{path} does not tell the recipe that it was trained by ({error} is missing)") from error
