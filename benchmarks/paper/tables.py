"""The tables: which cells each of them needs, and what it says of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from deer_policies.deer.checkpoint import load, load_policy
from deer_policies.deer.criteria import CRITERION_NAMES
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.precision import PRECISIONS, held_bytes
from deer_policies.interfaces import Budget
from paper.cells import Scored
from paper.figure import write_figure
from paper.markdown import scores, table
from paper.study import ALPHA, DELTA, FULL, SAMPLINGS, LeftOut, Study, Variant
from paper.times import Timed, timed

ALL = "minus all layers"
TIMED_TASKS = 8
"""Of which one expert episode each is what steps are timed on."""


def figure_3(study: Study, picture: Path) -> str:
    """Average length against compute, for budgets and for fixed depth."""
    everything, gmac = study.everything(), study.exit_gmac
    budgets = {average: study.budget(average) for average in study.budgets()}
    fixed = [study.fixed(index) for index in range(len(gmac))]
    write_figure(picture, list(budgets.values()), fixed)
    # The budgets that are as much as a fixed exit costs, with which it can be compared.
    beside = {float(f"{value:.5g}"): cell for value, cell in zip(gmac, fixed, strict=True)}
    layers = [layer + 1 for layer in study.checkpoint.model.exit_layers]
    rows = [(f"budget of {average:.4g} GMAC", cell) for average, cell in budgets.items()]
    rows += [(f"always {count} layers", cell) for count, cell in zip(layers, fixed, strict=True)]
    none: list[Scored | None] = [None] * len(fixed)
    return "\n\n".join(
        [
            f"![Average length against compute]({picture.parent.name}/{picture.name})",
            scores(
                "depth",
                rows,
                [
                    (ALL, [everything] * len(rows)),
                    ("minus fixed depth of that cost", [*(beside.get(average) for average in budgets), *none]),
                ],
            ),
            "The paper, task D to D: 2.83 of 5 at 8.6 of 31.2 'GFLOPs' (GMAC of the language model), against 2.71 for "
            "all 24 layers of RoboFlamingo++.",
        ]
    )


def table_4(study: Study) -> str:
    """Exit criteria at equal average cost."""
    rows: list[tuple[str, Scored]] = []
    notes = [
        f"All were asked for {study.average_llm_gmac:.4g} GMAC a step. 'deadline' follows the clock, so its score is "
        "never the same twice and its cost is the machine's: it is compared in `benchmarks/exit_criteria.py`."
    ]
    for criterion in CRITERION_NAMES:
        try:
            policy = study.with_criterion(criterion)
        except LeftOut as reason:
            notes.append(f"'{criterion}' is left out: {reason}.")
            continue
        if policy == study.policy:
            rows.append((criterion, study.budget(study.average_llm_gmac)))
            continue
        asked = f"{study.average_llm_gmac:.5g}"
        rows.append((criterion, study.cells.scored(f"criterion-{criterion}", policy, "--average-llm-gmac", asked)))
    try:
        promise = study.promise()
    except LeftOut as reason:
        notes.append(f"'conformal' is left out: {reason}.")
    else:
        values = [f"{value:g}" for value in (promise.epsilon, promise.alpha, promise.delta)]
        cell = study.cells.scored(f"conformal-{values[0]}", study.policy, "--conformal", *values)
        rows.append(
            (f"conformal (within {values[0]} on {1 - ALPHA:.0%} of the steps, confidence {1 - DELTA:.0%})", cell)
        )
    own = study.calibration.criterion
    reference = next(cell for name, cell in rows if name == own)
    others = [None if name == own else reference for name, _ in rows]
    references = [(f"minus {own}", others), (ALL, [study.everything()] * len(rows))]
    notes.append("The paper has action consistency best in all six of its comparisons.")
    return "\n\n".join([scores("criterion", rows, references), " ".join(notes)])


def table_3(study: Study) -> str:
    """With and without auxiliary heads."""
    return _variants(
        study,
        {"with auxiliary heads": FULL, "without": Variant(False, SAMPLINGS)},
        "The paper, task ABCD to D at 10 'GFLOPs': 4.13 with, 2.71 without.",
    )


def samplings(study: Study) -> str:
    """One sampling of exits, the other, both."""
    return _variants(
        study,
        {
            "both": FULL,
            "uniform only": Variant(True, ("uniform",)),
            "segments only": Variant(True, ("segments",)),
        },
        "",
    )


def _variants(study: Study, wanted: dict[str, Variant], paper: str) -> str:
    trained = study.trained()
    missing = [name for name, variant in wanted.items() if variant not in trained]
    if missing:
        raise LeftOut(f"there is no checkpoint trained {' and '.join(missing)}; see recipes/ablations and --variants")
    first, *_ = wanted.values()
    deepest, budget = str(len(study.exit_gmac) - 1), f"{study.average_llm_gmac:.5g}"
    tables = []
    for words, options in (
        (f"budget of {budget} GMAC", ("--average-llm-gmac", budget)),
        ("all layers", ("--fixed-exit", deepest)),
    ):
        cells = {}
        for name, variant in wanted.items():
            path = trained[variant]
            kind = "policy" if path == study.policy else path.stem
            cells[name] = study.cells.scored(f"variant-{kind}-{options[0].strip('-')}", path, *options)
        reference = next(iter(cells.values()))
        others = [None, *([reference] * (len(cells) - 1))]
        tables.append(scores(words, list(cells.items()), [(f"minus {next(iter(cells))}", others)]))
    notes = [_recipe_differences(trained[first], trained[variant], name) for name, variant in wanted.items()]
    return "\n\n".join(filter(None, [*tables, " ".join(filter(None, [*notes, paper]))]))


def _recipe_differences(first: Path, second: Path, name: str) -> str:
    """What else the trainings of two checkpoints differ in than what a table is about."""
    recipes = [load(path).provenance["recipe"] for path in (first, second)]
    for recipe in recipes:
        recipe["optimisation"] = {
            key: value for key, value in recipe["optimisation"].items() if key not in ("auxiliary_weight", "samplings")
        }
        recipe.pop("name")
    other = sorted(key for key in recipes[0].keys() | recipes[1].keys() if recipes[0].get(key) != recipes[1].get(key))
    return f"The recipe of '{name}' differs in {', '.join(other)} too, so this is no clean comparison." if other else ""


def table_6(study: Study) -> str:
    """Precisions."""
    budget = f"{study.average_llm_gmac:.5g}"
    cells: dict[str, Scored] = {}
    sizes = {}
    for precision in PRECISIONS:
        options = ("--average-llm-gmac", budget, "--precision", precision)
        plain = precision == "float32"
        cells[precision] = (
            study.budget(study.average_llm_gmac)
            if plain
            else study.cells.scored(f"precision-{precision}", study.policy, *options)
        )
        sizes[precision] = held_bytes(load_policy(study.policy, peak=Budget(), precision=precision).model) / 1e6
    rows = [(f"{name} ({sizes[name]:.2f} MB of weights)", cell) for name, cell in cells.items()]
    reference = cells["float32"]
    others = [None if cell is reference else reference for cell in cells.values()]
    return "\n\n".join(
        [
            scores("precision", rows, [("minus float32", others)]),
            "The paper, task ABCD to D: 4.13 with float32, 4.12 with float16, 3.91 with int4.",
        ]
    )


def tuning(study: Study) -> str:
    """Thresholds from data against Bayesian optimisation."""
    average, folder = f"{study.average_llm_gmac:.5g}", study.folder / "tune"
    given = ["--policy", str(study.policy), "--average-llm-gmac", average, "--workers", str(study.workers)]
    study.cells.run(["tune", *given, *study.tuning, "--out", str(folder)])
    data = study.budget(study.average_llm_gmac)
    tuned = study.cells.scored("tuned", folder / "policy.safetensors", "--average-llm-gmac", average)
    trials = json.loads((folder / "trials.json").read_text())
    best = trials[0]["score"]
    rows = [("solved from data", data), ("Bayesian optimisation", tuned)]
    return "\n\n".join(
        [
            scores("thresholds", rows, [("minus those from data", [None, data])]),
            f"The best of {len(trials)} trials was number {trials[0]['number']} ({best['success']:.1%} of the subtasks "
            f"at {best['llm_gmac']:.5f} GMAC a step where it was chosen; 0 are the thresholds from data). What they "
            f"ran, `deer tune {' '.join(study.tuning)}`, is apart from what is scored here. The paper scores on what "
            "it tuned on: 2.83 and 2.92, task D to D.",
        ]
    )


def table_5(study: Study) -> str:
    """Measured time of a step."""
    path = study.folder / "times.json"
    budgets = study.budgets()
    settings = {"sha256": study.checkpoint.sha256, "budgets": budgets}
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("settings") != settings:
        measured = {name: asdict(found) for name, found in _measured(study, budgets).items()}
        kept = {"settings": settings, "times": measured}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=1))
    header = ["depth", "median", "mean", "mean, of all layers", "language model", "whole policy"]
    rows = []
    for name, values in kept["times"].items():
        found = Timed(**values)
        low, high = found.ratio_interval
        rows.append(
            [
                name,
                f"{found.p50_ms:.2f} ms",
                f"{found.mean_ms:.2f} ms",
                f"{found.ratio:.1%} [{low:.1%}, {high:.1%}]",
                f"{found.llm_share:.1%}",
                f"{found.total_share:.1%}",
            ]
        )
    return "\n\n".join(
        [
            table(header, rows),
            "Wall time of whole steps on one thread of the CPU, from images to action, on what the expert saw; each "
            "observation was stepped at every depth in turn. The last two columns are computation against all layers. "
            "The paper has 17.5 ms against 55 ms for the language model alone.",
        ]
    )


def _measured(study: Study, budgets: list[float]) -> dict[str, Timed]:
    import torch

    from expert_observations import record

    torch.set_num_threads(1)
    tasks = study.calibration.source.get("tasks")
    if not tasks:
        raise LeftOut("the checkpoint's calibration does not tell its tasks")
    policy = load_policy(study.policy, peak=Budget())
    layers = [layer + 1 for layer in policy.info.exit_layers]
    rules = {f"always {count} layers": ThresholdRule.fixed(index) for index, count in enumerate(layers)}
    everything = list(rules)[-1]
    for average in budgets:
        policy.set_budget(Budget(average_llm_gmac=average))
        rules[f"budget of {average:.4g} GMAC"] = policy.exit_rule
    print("== timing", flush=True)
    episodes = record("D", tasks[:: -(-len(tasks) // TIMED_TASKS)], 1, 7, policy.info.horizon)
    return timed(policy, rules, everything, episodes)
