"""The paper's tables on our ground: runs every evaluation that they need and writes them into docs/results.md.

    python benchmarks/paper_tables.py --policy deer-nano --tasks fixtures --starts 25 --out runs/tables
    python benchmarks/paper_tables.py --policy D.safetensors --variants runs/ablations --sequences 500 --out runs/d

All cells of all tables run the same sequences (or starts) with the same wordings, so that differences are paired; what
thresholds are tuned on has a seed of its own. Each cell is a folder of `deer eval` under --out: the same command goes
on where it was stopped, and what is finished is not run again. The document is written anew after each table; tables of
earlier runs stay in it, as long as what they are of is the same.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import find, load
from deer_policies.errors import DeerError
from paper.cells import Cells, Deer, deer
from paper.document import Made, kept, section, write_section
from paper.study import LeftOut, Study
from paper.tables import figure_3, samplings, table_3, table_4, table_5, table_6, tuning

TABLES: dict[str, tuple[str, Callable[[Study], str] | None]] = {
    "figure3": ("Success against compute (the paper's figure 3)", None),
    "table4": ("Exit criteria at equal average cost (table 4)", table_4),
    "table3": ("Auxiliary heads (table 3)", table_3),
    "samplings": ("One sampling of exits, the other, both", samplings),
    "table6": ("Precision (table 6)", table_6),
    "tuning": ("Thresholds from data against Bayesian optimisation", tuning),
    "table5": ("Measured time a step (table 5)", table_5),
}
DEFAULT_SHARE = 0.4
"""Budget of the comparisons, of all layers, for a checkpoint that starts without one."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    made.add_argument("--variants", type=Path, help="folder of checkpoints trained by the ablations' recipes")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--sequences", type=int, default=500, help="the first N of the seed's; see `deer eval`")
    what.add_argument("--tasks", nargs="+", help="single tasks instead, from random starts")
    made.add_argument("--starts", type=int, default=25, help="for each of --tasks")
    made.add_argument("--seed", type=int, default=3000, help="of sequences or starts, and of wordings")
    made.add_argument("--max-steps", type=int, default=360, help="control steps before a subtask counts as failed")
    made.add_argument("--average-llm-gmac", type=float, help="budget of the comparisons; the checkpoint's by default")
    made.add_argument(
        "--shares", type=float, nargs="*", default=[0.3, 0.4, 0.6, 0.8], help="budgets of figure 3, of all layers"
    )
    made.add_argument("--tuning-sequences", type=int, default=40, help="of each trial (or starts, with --tasks)")
    made.add_argument("--tuning-seed", type=int, default=5000, help="of these")
    made.add_argument("--trials", type=int, default=20, help="of the search for thresholds")
    made.add_argument(
        "--calibration-episodes", type=int, help="of criteria other than the checkpoint's; as it had by default"
    )
    made.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="make these tables only")
    made.add_argument("--device", default="cpu", help="where the policy runs in the evaluations: cpu or cuda")
    made.add_argument("--workers", type=int, default=2, help="simulator processes")
    made.add_argument("--out", type=Path, default=Path("runs/tables"), help="folder for everything, to resume from")
    made.add_argument("--results", type=Path, default=Path("docs/results.md"), help="document to write the tables into")
    return made


def study_of(arguments: argparse.Namespace, run: Deer) -> Study:
    """What the options ask for."""
    # The commands that are written down then hold on other machines too.
    policy = Path(os.path.relpath(find(arguments.policy)))
    checkpoint = load(policy)
    if arguments.tuning_seed == arguments.seed:
        raise SystemExit("--tuning-seed is the scores' --seed; thresholds must be tuned on other sequences")
    full = CostModel(checkpoint.model.config).llm_gmac(len(checkpoint.model.exit_layers) - 1)
    average = arguments.average_llm_gmac or checkpoint.budget.average_llm_gmac or DEFAULT_SHARE * full
    limit = ["--max-steps", str(arguments.max_steps)]
    if arguments.tasks:
        what, tuned = (
            ["--tasks", *arguments.tasks, "--starts", str(count)]
            for count in (arguments.starts, arguments.tuning_sequences)
        )
    else:
        what, tuned = (["--sequences", str(count)] for count in (arguments.sequences, arguments.tuning_sequences))
    workers = ["--workers", str(arguments.workers)]
    ground = [*what, "--seed", str(arguments.seed), *limit, *workers, "--device", arguments.device]
    tuning_options = ["--trials", str(arguments.trials), *tuned, "--seed", str(arguments.tuning_seed), *limit]
    return Study(
        policy=policy,
        checkpoint=checkpoint,
        cells=Cells(arguments.out / "cells", ground, run),
        folder=arguments.out,
        average_llm_gmac=float(f"{average:.5g}"),
        shares=tuple(arguments.shares),
        workers=arguments.workers,
        tuning=tuple(tuning_options),
        variants=tuple(sorted(arguments.variants.glob("*.safetensors"))) if arguments.variants else (),
        calibration_episodes=arguments.calibration_episodes,
        calibration_max_steps=arguments.max_steps,
    )


def source_of(study: Study, arguments: argparse.Namespace) -> str:
    """What the tables are of."""
    if arguments.tasks:
        what = f"{arguments.starts} random starts for each of {' '.join(arguments.tasks)}"
    else:
        what = f"the first {arguments.sequences} sequences"
    return (
        f"PlayTable D, {what}, seed {arguments.seed}, validation wordings, at most {arguments.max_steps} steps a "
        f"subtask, the same in every row. Weights {study.checkpoint.sha256[:16]}. Intervals are 95 %, those of "
        "differences bootstrapped over pairs. Compute is against all layers; every step weighs the same."
    )


def make_table(name: str, study: Study, picture: Path) -> str:
    """The Markdown of a table, or why there is none."""
    make = TABLES[name][1]
    try:
        return figure_3(study, picture) if make is None else make(study)
    except LeftOut as reason:
        return f"Left out: {reason}."


def main(argv: Sequence[str], run: Deer = deer) -> None:
    """Makes table after table; `run` runs the `deer` commands that they need."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    command = shlex.join(["python", "benchmarks/paper_tables.py", *argv])
    titles = {name: title for name, (title, _) in TABLES.items()}
    try:
        study = study_of(arguments, run)
        model, source = study.checkpoint.name, source_of(study, arguments)
        picture = arguments.results.parent / "figures" / f"{model}-compute.svg"
        for number, name in enumerate(arguments.only, 1):
            print(f"=== {number}/{len(arguments.only)} {titles[name]}", flush=True)
            study.cells.used.clear()
            text = make_table(name, study, picture)
            print(f"\n{text}\n", flush=True)
            commits = {str(cell.report["commit"]) for cell in study.cells.used.values()} - {""}
            Made(text, command, source, tuple(sorted(commits))).keep(arguments.out / "tables" / f"{name}.json")
            made = kept(arguments.out / "tables", titles, source)
            write_section(
                arguments.results, f"paper_tables {model}", section(f"The paper's tables: `{model}`", made, titles)
            )
    except DeerError as error:
        raise SystemExit(f"paper_tables: {error}") from error
    print(f"wrote {arguments.results}")


if __name__ == "__main__":
    main(sys.argv[1:])
