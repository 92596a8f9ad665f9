"""The report of an evaluation: its figures, and everything that is needed to make it again."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from deer_policies.interfaces import Policy
from deer_ros.cli.provenance import commit, versions
from deer_sim.chains import Chain
from deer_sim.environment import EnvironmentSpec
from deer_sim.instructions import WRITTEN
from deer_sim.results import ChainResult

REPORT, PAGE = "report.json", "report.html"


@dataclass(frozen=True)
class Provenance:
    """Where an evaluation comes from.

    Attributes:
        settings: what its results depend on; runs that go on with it must have the same.
        surroundings: everything else that the report names.
    """

    settings: dict[str, Any]
    surroundings: dict[str, Any]

    @classmethod
    def of(cls, arguments: argparse.Namespace, policy: Policy | None, spec: EnvironmentSpec) -> Provenance:
        """From the arguments of `deer eval`, the policy that they make (None: the expert) and the environment."""
        wordings = "own validation wordings"
        if arguments.annotations is not None:
            digest = hashlib.sha256(arguments.annotations.read_bytes()).hexdigest()
            wordings = f"{arguments.annotations.name} {digest[:16]}"
        elif arguments.wordings != WRITTEN:
            wordings += f", {arguments.wordings}"
        rule = getattr(policy, "exit_rule", None)
        settings = {
            "environment": spec.name,
            "renderer": spec.renderer,
            "policy": "expert" if policy is None else policy.info.name,
            "weights_sha256": "" if policy is None else policy.info.weights_sha256,
            "budget": None if policy is None else asdict(policy.budget),
            "thresholds": None if rule is None else list(rule.thresholds),
            "precision": arguments.precision,
            "device": arguments.device,
            "reuse_views_below": arguments.reuse_views_below,
            "mode": "sequences" if arguments.tasks is None else "tasks",
            "seed": arguments.seed,
            "wordings": wordings,
            "max_steps": arguments.max_steps,
        }
        surroundings = {
            "exit_layers": [] if policy is None else list(policy.info.exit_layers),
            "horizon": 1 if policy is None else policy.info.horizon,
            "workers": arguments.workers,
            "ray": arguments.ray,
            "commit": commit(),
            "versions": versions(),
            "machine": f"{platform.machine()}, {platform.platform()}",
            "command": arguments.command_line,
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        return cls(settings, surroundings)


def write_report(
    folder: Path,
    results: Sequence[ChainResult],
    plan: Sequence[Chain],
    provenance: Provenance,
    policy: Policy | None = None,
) -> dict[str, Any]:
    """Writes report.json and report.html into the folder and returns the content of the former.

    Args:
        folder: of the results.
        results, plan, provenance: what came of what was planned, and where it comes from.
        policy: the one that acted; None is the expert.
    """
    from deer_ros.cli.evaluation_page import render_page
    from deer_sim.scores import summarise

    report = {
        **summarise(results),
        **provenance.settings,
        **provenance.surroundings,
        "refused": refused(policy, plan),
        "notes": notes(plan, provenance),
        "films": [
            {"key": result.key, "film": result.film, "solved": result.solved} for result in results if result.film
        ],
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(render_page(report), encoding="utf-8")
    return report


def refused(policy: Policy | None, plan: Sequence[Chain]) -> dict[str, Any] | None:
    """How many of the planned instructions the policy would refuse if it were asked first; scores don't depend on it.

    None for a policy that recognises no skills.
    """
    texts = sorted({subtask.instruction for chain in plan for subtask in chain.subtasks})
    understand = getattr(policy, "understanding", lambda text: None)
    understood = [found for text in texts if (found := understand(text)) is not None]
    if not understood:
        return None
    count = sum(not found.known for found in understood)
    return {"instructions": len(texts), "refused": count, "rate": count / len(texts)}


def notes(plan: Sequence[Chain], provenance: Provenance) -> list[str]:
    """What a reader must know before comparing the figures with others."""
    from deer_sim.calvin.rules import defies_door
    from deer_sim.calvin.sequences import OFFICIAL_SEED, SEQUENCES

    settings, horizon = provenance.settings, provenance.surroundings["horizon"]
    found = []
    if horizon > 1:
        found.append(
            f"The policy answers with {horizon} actions at a time and is asked again once they are executed. Compute "
            "and exits are per policy step, a control step at which it is asked; all other steps are control steps."
        )
    if settings["environment"].startswith("playtable"):
        found.append(
            "PlayTable follows CALVIN's geometry, rules and starts but draws and collides with shapes of its own: this "
            "is no CALVIN score."
        )
    if settings["renderer"] != "none":
        found.append(
            f"Rendered by {settings['renderer']}. CALVIN's data was rendered on a GPU (EGL), which looks different; "
            "scores from different renderers can't be compared."
        )
    if settings["mode"] == "sequences":
        among_all = {int(chain.key.rsplit("/")[-1]): chain for chain in plan}
        numbers = [
            number for number, chain in among_all.items() if defies_door([subtask.task for subtask in chain.subtasks])
        ]
        among = (
            f"among those here numbers {', '.join(map(str, numbers))}"
            if numbers
            else "none of them is among those here"
        )
        found.append(
            "By CALVIN's symbolic rules a block placed in the cabinet lies behind the door; in truth it lies on the "
            "open side. So five of the 1000 official sequences, which move the door in between and then lift the "
            f"same block out of the cabinet, can't be carried out as they are meant ({among}, counted from 0)."
        )
        found.append(
            "The task D to D rates in the DeeR paper are multiples of 1/224: they come from 224 sequences, where the "
            "standard error of an average length is about 0.12, and its thresholds were tuned on the same ones. DeeR "
            "prints mean exits over the steps of solved subtasks only; here every step counts."
        )
        if settings["seed"] != OFFICIAL_SEED or len(plan) != SEQUENCES:
            which = (
                "of the official"
                if settings["seed"] == OFFICIAL_SEED
                else f"of seed {settings['seed']} by the official rules, not of the official"
            )
            first = list(among_all) == list(range(len(plan)))
            found.append(f"{len(plan)} sequences, {'the first' if first else 'chosen ones'} {which} {SEQUENCES}.")
    if settings["max_steps"] != 360:
        found.append(f"Subtasks were given {settings['max_steps']} steps; CALVIN gives 360.")
    return found


def print_report(report: dict[str, Any]) -> None:
    """Prints the tables and the cost."""
    for task, row in [*report["per_task"].items(), ("all", report["all"])]:
        low, high = row["wilson"]
        print(
            f"{task:24s} {row['success']:4d}/{row['attempts']:<4d} {row['rate']:6.1%} "
            f"[{low:.1%}, {high:.1%}]  {row['mean_steps']:5.0f} steps"
        )
    if report["mode"] == "sequences":
        print("solved in a row  " + "  ".join(f"{n}: {row['rate']:.1%}" for n, row in report["per_position"].items()))
        low, high = report["average_length_interval"]
        print(f"average length {report['average_length']:.3f} [{low:.3f}, {high:.3f}] of {len(report['per_position'])}")
    for group, row in report["per_wording"].items():
        low, high = row["interval"]
        print(f"{group} wordings: {row['success']} of {row['attempts']}, {row['rate']:.1%} [{low:.1%}, {high:.1%}]")
    if report["refused"] is not None:
        print(
            "of {instructions} different instructions {refused} would be refused ({rate:.1%})".format(
                **report["refused"]
            )
        )
    if report["llm_share"] is not None:
        print(
            f"language model: {report['mean_llm_gmac']:.4f} GMAC a policy step, {report['llm_share']:.1%} of all "
            f"layers ({report['mean_exit_layers']:.2f} layers on average); whole policy: "
            f"{report['mean_total_gmac']:.4f} GMAC, {report['total_share']:.1%}; "
            f"asked at {report['asked_share']:.1%} of the control steps"
        )
    for note in report["notes"]:
        print(f"note: {note}")
