"""`deer eval`: scores a policy on CALVIN's sequences of five subtasks, or on single subtasks; resumable."""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deer_policies.deer.precision import PRECISIONS
from deer_ros.cli.budget_options import PEAKS, add_average, add_peaks, budget_asked_for
from deer_ros.cli.calibrate import add_promise
from deer_sim.environments import BACKENDS, RENDERERS
from deer_sim.instructions import EVERY, GROUPS, WRITTEN

if TYPE_CHECKING:
    from deer_policies.deer.exits import ExitRule
    from deer_policies.deer.policy import DeerPolicy
    from deer_policies.interfaces import Budget, Policy
    from deer_sim.chains import Chain
    from deer_sim.evaluation import Run
    from deer_sim.fleet import Setup
    from deer_sim.results import ChainResult

HELP = "score a policy in simulation: CALVIN's sequences or single tasks, exits taken and compute spent"
EXPERT = "expert"
GPU_ROWS = 8
"""Samples that are computed at once on a GPU, always; see `deer_policies.deer.batching`."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--policy",
        default="deer-nano",
        help="name of a bundled policy, path of a checkpoint, MODULE:FUNCTION that returns a policy of your own, or "
        "'expert', the scripted one",
    )
    parser.add_argument("--env", default="playtable:D", help="playtable:SCENE or calvin:SCENE; scenes are A, B, C, D")
    parser.add_argument("--calvin-data", type=Path, help="folder of CALVIN's scene data, for calvin:*")
    parser.add_argument(
        "--backend", choices=BACKENDS, default=BACKENDS[0], help="our engine, or CALVIN's own package for calvin:*"
    )
    parser.add_argument(
        "--renderer",
        choices=RENDERERS,
        default=RENDERERS[0],
        help="pybullet's on the CPU; for calvin:* also 'light', the same with a coarser and quicker arm, or OpenGL; "
        "scores of different ones don't compare",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--sequences",
        type=int,
        default=1000,
        metavar="N",
        help="the first N of the seed's 1000 sequences of five tasks",
    )
    what.add_argument("--tasks", nargs="+", help="single tasks instead, from random starts; 'fixtures' for the eight")
    parser.add_argument("--starts", type=int, default=25, help="random starts for each of --tasks")
    parser.add_argument(
        "--seed",
        type=int,
        help="of sequences (by default 0: the official ones) or of starts (by default 1000), and of wordings; keep it "
        "apart from training seeds",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        help="YAML file with a sentence for each task; by default CALVIN's own for calvin:*, ours for playtable:*",
    )
    parser.add_argument(
        "--wordings",
        choices=(*GROUPS, EVERY),
        default=WRITTEN,
        help="which of our own validation wordings to draw from: plainly written, as a speech recogniser gives them, "
        "in many words, or every one of them; the report then tells them apart",
    )
    add_policy_options(parser)
    parser.add_argument("--max-steps", type=int, default=360, help="control steps before a subtask counts as failed")
    parser.add_argument("--workers", type=int, default=2, help="simulator processes; scores don't depend on it")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster, with --workers processes on each node")
    parser.add_argument("--films", type=int, default=2, help="how many sequences (or starts) to film, the first ones")
    parser.add_argument(
        "--keep-steps",
        action="store_true",
        help="keep each step's exit, action and touch, and the expert's action",
    )
    parser.add_argument(
        "--chains",
        nargs="+",
        metavar="KEY",
        help="only these of the sequences or starts, by their keys in results.jsonl",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for results (resumed from), report and films")


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Declares how deep the policy runs, and where."""
    depth = parser.add_mutually_exclusive_group()
    add_average(depth)
    depth.add_argument("--fixed-exit", type=int, help="always take this exit (0 is the shallowest, -1 the deepest)")
    add_promise(depth)
    add_peaks(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="how the weights are held")
    parser.add_argument("--device", default="cpu", help="where the policy runs: cpu or cuda")
    parser.add_argument(
        "--reuse-views-below",
        type=float,
        default=0.0,
        help="don't encode a camera's image again if its pixels (0..255) differ by less than this on average from the "
        "image that was encoded last; 0: always encode",
    )


def make_policy(
    name: str,
    precision: str = "float32",
    reuse_views_below: float = 0.0,
    budget: Budget | None = None,
    rule: ExitRule | None = None,
    device: str = "cpu",
) -> DeerPolicy:
    """Builds the policy, on one thread, with the budget of its checkpoint, another, or an exit rule."""
    import torch

    from deer_policies.deer.checkpoint import load_policy
    from deer_policies.deer.view_reuse import ViewReuse

    torch.set_num_threads(1)
    policy = load_policy(name, device, budget, precision)
    policy.set_view_reuse(ViewReuse(reuse_views_below))
    if policy.device.type == "cuda":
        policy.set_batch_rows(GPU_ROWS)
    if rule is not None:
        policy.set_exit_rule(rule)
    return policy


def own_policy(name: str) -> Policy:
    """Calls FUNCTION of MODULE, for `name` MODULE:FUNCTION.

    Raises:
        ConfigError: if there is none, or what it returns is no policy.
    """
    from deer_policies.errors import ConfigError
    from deer_policies.interfaces import Policy

    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--policy {name}: {error}; write MODULE:FUNCTION, with the module on PYTHONPATH") from error
    made = make()
    if not isinstance(made, Policy):
        raise ConfigError(f"--policy {name}: it returned a {type(made).__name__}; see deer_policies.interfaces.Policy")
    return made


def depth_asked_for(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `make_policy` that set the depth."""
    from deer_policies.deer.checkpoint import load, read_config
    from deer_policies.deer.conformal import Promise, conformal_rule
    from deer_policies.deer.exits import ThresholdRule
    from deer_policies.errors import ConfigError

    budget = budget_asked_for(arguments)
    if budget is not None:
        if arguments.fixed_exit is not None or arguments.conformal is not None:
            raise ConfigError(f"--fixed-exit and --conformal stand for themselves; leave out {', '.join(PEAKS)}")
        return {"budget": budget}
    if arguments.fixed_exit is not None:
        exits = len(read_config(arguments.policy).language.exit_layers)
        return {"rule": ThresholdRule.fixed(range(exits)[arguments.fixed_exit])}
    if arguments.conformal is not None:
        calibration = load(arguments.policy).calibration
        if calibration is None:
            raise ConfigError(f"{arguments.policy} has no calibration; make one with `deer calibrate`")
        return {"rule": conformal_rule(calibration, Promise(*arguments.conformal))}
    return {}


def policy_factory(arguments: argparse.Namespace) -> Callable[[], Policy] | None:
    """What makes the policy, here or on another machine; None for the expert."""
    if arguments.policy == EXPERT:
        return None
    if ":" in arguments.policy and not Path(arguments.policy).exists():
        return functools.partial(own_policy, arguments.policy)
    return functools.partial(
        make_policy,
        arguments.policy,
        arguments.precision,
        arguments.reuse_views_below,
        **depth_asked_for(arguments),
        device=arguments.device,
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs what is missing with a running score, and writes the report."""
    from deer_policies.errors import ConfigError
    from deer_ros.cli.evaluation_progress import Progress
    from deer_ros.cli.evaluation_report import Provenance, print_report, write_report
    from deer_sim.evaluation import evaluate
    from deer_sim.fleet import Setup
    from deer_sim.results import claim, read_results

    if arguments.workers < 1 or arguments.max_steps < 1:
        raise ConfigError("--workers and --max-steps must be at least 1")
    plan = chosen(planned(arguments), arguments.chains)
    factory = policy_factory(arguments)
    policy = None if factory is None else factory()
    setup = Setup(
        environment=arguments.env,
        calvin_data=arguments.calvin_data,
        expert=policy is None,
        max_steps=arguments.max_steps,
        films=frozenset(chain.key for chain in plan[: arguments.films]),
        keep_steps=arguments.keep_steps,
        folder=arguments.out,
        budget_gmac=None if policy is None else policy.budget.average_llm_gmac,
        backend=arguments.backend,
        renderer=arguments.renderer,
    )
    environment = setup.build()
    spec = environment.spec
    environment.close()
    provenance = Provenance.of(arguments, policy, spec)
    claim(arguments.out, provenance.settings)
    results: list[ChainResult] = []
    before = {result.key for result in read_results(arguments.out)}
    progress = Progress(len(plan), sum(chain.key in before for chain in plan))
    for result in evaluate(plan, arguments.out, runner(arguments, setup, factory, policy)):
        results.append(result)
        progress.show(result)
    print_report(write_report(arguments.out, results, plan, provenance, policy))
    return 0


def planned(arguments: argparse.Namespace) -> list[Chain]:
    """What is to be run."""
    from deer_policies.errors import ConfigError
    from deer_sim.calvin.sequences import OFFICIAL_SEED, task_sequences
    from deer_sim.chains import annotated_wording, own_wording, sequence_chains, task_chains
    from deer_sim.environments import split_name
    from deer_sim.tasks import FIXTURE_TASKS

    family, scene = split_name(arguments.env)
    if arguments.annotations is None and family == "calvin" and arguments.policy != EXPERT:
        arguments.annotations = official_annotations(arguments.calvin_data)
    if arguments.annotations is not None and arguments.wordings != WRITTEN:
        raise ConfigError("--wordings chooses among our own sentences; leave it out with --annotations")
    own = functools.partial(own_wording, group=arguments.wordings)
    wording = own if arguments.annotations is None else annotated_wording(arguments.annotations)
    if arguments.tasks is not None:
        arguments.seed = 1000 if arguments.seed is None else arguments.seed
        tasks = FIXTURE_TASKS if arguments.tasks == ["fixtures"] else tuple(arguments.tasks)
        return task_chains(scene, tasks, arguments.starts, arguments.seed, wording)
    arguments.seed = OFFICIAL_SEED if arguments.seed is None else arguments.seed
    return sequence_chains(task_sequences(arguments.sequences, arguments.seed), arguments.seed, scene, wording)


def chosen(plan: Sequence[Chain], keys: Sequence[str] | None) -> list[Chain]:
    """The chains of these keys, or all. Raises ConfigError if there is no such chain."""
    from deer_policies.errors import ConfigError, listed

    if unknown := sorted(set(keys or ()) - {chain.key for chain in plan}):
        raise ConfigError(f"--chains: there are no {listed(unknown)} among what is run, such as {plan[0].key}")
    return [chain for chain in plan if keys is None or chain.key in keys]


def official_annotations(calvin_data: Path | None) -> Path:
    """CALVIN's validation sentences beside its scene data.

    Raises:
        ConfigError: if they aren't there.
    """
    from deer_policies.errors import ConfigError

    name = "annotations/new_playtable_validation.yaml"
    if calvin_data is not None:
        for folder in (calvin_data, calvin_data / "conf", calvin_data.parent / "calvin_models" / "conf"):
            if (folder / name).exists():
                return folder / name
    raise ConfigError(
        f"CALVIN's sentences, {name}, are not in the folder of --calvin-data; give the file with --annotations (in "
        "https://github.com/mees/calvin it is calvin_models/conf/annotations/new_playtable_validation.yaml)"
    )


def runner(
    arguments: argparse.Namespace, setup: Setup, factory: Callable[[], Policy] | None, policy: Policy | None
) -> Run:
    """Where the chains are run."""
    from deer_sim.evaluation import local

    if arguments.ray is None:
        return local(setup, policy, arguments.workers)
    from deer_sim.ray_cluster import on_ray

    return on_ray(arguments.ray, setup, factory, arguments.workers)
