"""Simulator processes that run chains side by side, and the one model process that answers all of them in batches."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import DeerError, SimulatorError
from deer_policies.interfaces import ActionChunk, BatchPolicy, ExitReport, Observation, Policy, PolicyInfo
from deer_sim.chains import Chain
from deer_sim.environment import Environment
from deer_sim.environments import BACKENDS, RENDERERS, make_environment, split_name
from deer_sim.expert import Expert
from deer_sim.results import ChainResult, SubtaskResult
from deer_sim.rollout import MAX_STEPS, Actor, ExpertActor, PolicyActor, rollout
from deer_sim.settling import settled
from deer_sim.step_record import StepRecorder
from deer_sim.workers import begin_worker


@dataclass(frozen=True)
class Setup:
    """What a simulator process needs to know.

    Attributes:
        environment: name for `make_environment`.
        calvin_data: folder for it.
        expert: the scripted expert acts, and no camera is drawn.
        max_steps: limit of control steps for a subtask.
        films: chains to film, by key; the expert is not filmed.
        keep_steps: write a `step_record.StepRecord` of each chain of a policy.
        folder: where films and records go.
        budget_gmac: average budget of the policy's language model that films show.
        backend, renderer: for `make_environment`.
    """

    environment: str
    calvin_data: Path | None = None
    expert: bool = False
    max_steps: int = MAX_STEPS
    films: frozenset[str] = frozenset()
    keep_steps: bool = False
    folder: Path = Path()
    budget_gmac: float | None = None
    backend: str = BACKENDS[0]
    renderer: str = RENDERERS[0]

    def build(self) -> Environment:
        """The environment."""
        return make_environment(self.environment, not self.expert, self.calvin_data, self.backend, self.renderer)


def run_chain(
    chain: Chain,
    environment: Environment,
    actor: Actor,
    max_steps: int = MAX_STEPS,
    on_step: Callable[..., None] | None = None,
    every_picture: bool = False,
) -> ChainResult:
    """Runs the chain's subtasks until one fails.

    `on_step` is told the subtask's number, and then what `deer_sim.rollout.OnStep` is told; `every_picture` has
    pictures drawn for it at every control step.
    """
    now = environment.reset(chain.seed, np.array(chain.robot_obs), np.array(chain.scene_obs))
    if chain.settles:
        now = settled(environment, np.array(chain.robot_obs))
    actor.reset(now)
    results: list[SubtaskResult] = []
    for number, subtask in enumerate(chain.subtasks):
        told = None if on_step is None else partial(on_step, number)
        result = rollout(environment, actor, subtask.task, subtask.instruction, now, max_steps, told, every_picture)
        results.append(SubtaskResult.of(subtask.task, subtask.instruction, result))
        now = result.last
        if not result.success:
            break
    return ChainResult(chain.key, len(chain.subtasks), tuple(results))


@dataclass(frozen=True)
class _Question:
    """What a simulator process asks the model: an observation, and whether a subtask begins with it."""

    observation: Observation
    fresh: bool


@dataclass(frozen=True)
class _Failure:
    """Why a simulator process can't go on; `expected` if the text is meant for a user."""

    text: str
    expected: bool


class _RemotePolicy:
    """The policy as a simulator process sees it: its memory stays with the model."""

    def __init__(self, link: Connection, info: PolicyInfo) -> None:
        self._link = link
        self.info = info

    def initial_state(self) -> bool:
        """Whether the next step is the first of a subtask."""
        return True

    def step(self, observation: Observation, state: bool) -> tuple[ActionChunk, bool, ExitReport]:
        """Asks the model and waits."""
        self._link.send(_Question(observation, state))
        chunk, report = self._link.recv()
        return chunk, False, report


def _simulate(link: Connection, setup: Setup, info: PolicyInfo | None) -> None:
    """The life of a simulator process: takes chains until it gets None."""
    begin_worker()
    try:
        environment = setup.build()
        if info is None:
            actor: Actor = ExpertActor(Expert(split_name(setup.environment)[1]))
        else:
            remote: Any = _RemotePolicy(link, info)
            actor = PolicyActor(remote)
        link.send(None)
        while (chain := link.recv()) is not None:
            link.send(_watched(chain, environment, actor, setup, info))
    except EOFError:
        return
    except Exception as error:
        expected = isinstance(error, DeerError)
        link.send(_Failure(str(error) if expected else traceback.format_exc(), expected))


def _watched(
    chain: Chain, environment: Environment, actor: Actor, setup: Setup, info: PolicyInfo | None
) -> ChainResult:
    """Runs a chain and leaves the film and the record of it that are wanted."""
    if info is None:
        return run_chain(chain, environment, actor, setup.max_steps)
    name, film, steps = chain.key.replace("/", "-"), "", ""
    watching: list[Callable[..., None]] = []
    with ExitStack() as stack:
        if chain.key in setup.films:
            from deer_sim.chain_film import ChainFilm

            film, title = f"films/{name}.mp4", f"{info.name} · {environment.spec.name}"
            camera = ChainFilm(setup.folder / film, chain, info.exit_layers, title, setup.budget_gmac)
            watching.append(stack.enter_context(camera).add)
        if setup.keep_steps:
            recorder = StepRecorder(chain, Expert(split_name(setup.environment)[1]))
            watching.append(recorder.add)

        def on_step(*step: Any) -> None:
            for told in watching:
                told(*step)

        result = run_chain(chain, environment, actor, setup.max_steps, on_step, every_picture=bool(film))
    if setup.keep_steps:
        steps = f"steps/{name}.npz"
        recorder.save(setup.folder / steps)
    return replace(result, film=film, steps=steps)


def step_together(
    policy: Policy, observations: Sequence[Observation], states: Sequence[Any]
) -> list[tuple[ActionChunk, Any, ExitReport]]:
    """One step of each of several episodes, in one batch where the policy knows how."""
    if isinstance(policy, BatchPolicy):
        return policy.step_batch(observations, states)
    return [policy.step(observation, state) for observation, state in zip(observations, states, strict=True)]


def run_chains(chains: Iterator[Chain], setup: Setup, policy: Policy | None, workers: int) -> Iterator[ChainResult]:
    """Runs chains in `workers` processes and yields results as they come, in no certain order.

    The policy runs here, in the calling process, on whatever observations have come in; None for the expert.

    Raises:
        DeerError: what a simulator process could not do; the others are ended.
    """
    context = get_context("spawn")
    info = None if policy is None else policy.info
    links: dict[Connection, Any] = {}
    try:
        for _ in range(workers):
            link, far = context.Pipe()
            process = context.Process(target=_simulate, args=(far, setup, info), daemon=True)
            process.start()
            far.close()
            links[link] = process
        yield from _serve(chains, links, policy)
    finally:
        for link, process in links.items():
            link.close()
            process.terminate()
            process.join()


def _serve(chains: Iterator[Chain], links: dict[Connection, Any], policy: Policy | None) -> Iterator[ChainResult]:
    states: dict[Connection, Any] = {}
    busy = set(links)
    while busy:
        results: list[ChainResult] = []
        questions: dict[Connection, Observation] = {}
        for link in connection.wait(list(busy)):
            assert isinstance(link, Connection)
            message = _received(link)
            if isinstance(message, _Question):
                assert policy is not None
                questions[link] = message.observation
                if message.fresh:
                    states[link] = policy.initial_state()
                continue
            if message is not None:
                results.append(message)
            chain = next(chains, None)
            _send(link, chain)
            if chain is None:
                busy.discard(link)
        if questions:
            assert policy is not None
            answers = step_together(policy, list(questions.values()), [states[link] for link in questions])
            for link, (chunk, states[link], report) in zip(questions, answers, strict=True):
                _send(link, (chunk, report))
        yield from results


_ENDED = (
    "a simulator process ended by itself, perhaps because memory ran out; start again with fewer --workers, and the "
    "evaluation goes on where it is"
)


def _send(link: Connection, message: Any) -> None:
    try:
        link.send(message)
    except OSError as error:
        raise SimulatorError(_ENDED) from error


def _received(link: Connection) -> Any:
    try:
        message = link.recv()
    except (EOFError, OSError) as error:
        raise SimulatorError(_ENDED) from error
    if isinstance(message, _Failure):
        if message.expected:
            raise SimulatorError(message.text)
        raise RuntimeError(f"a simulator process failed:\n{message.text}")
    return message
