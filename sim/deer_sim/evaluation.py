"""Evaluates a policy on planned chains: resumable, and with the same results whatever runs beside what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deer_policies.interfaces import Policy
from deer_sim.chains import Chain
from deer_sim.fleet import Setup, run_chains
from deer_sim.results import ChainResult, open_store

Run = Callable[[Iterator[Chain]], Iterator[ChainResult]]
"""Runs chains and yields their results as they come; see `local`."""


def local(setup: Setup, policy: Policy | None, workers: int) -> Run:
    """On this machine: the policy in this process, the simulator in `workers` others."""
    return lambda chains: run_chains(chains, setup, policy, workers)


def evaluate(plan: Sequence[Chain], folder: Path, run: Run) -> Iterator[ChainResult]:
    """Yields results as they come, first those that the folder holds, then new ones, which are appended to it.

    Args:
        plan: the chains; results of others in the folder are left alone.
        folder: to resume from; what its results depend on is the caller's to check (`deer_sim.results.claim`).
        run: runs those that are missing; not called if none are.

    Raises:
        ConfigError: if the folder holds something else, or another process writes to it.
        DeerError: what the simulation can't do; what is finished stays, and a later call goes on from there.
    """
    with open_store(folder) as (before, store):
        done = {result.key: result for result in before}
        yield from (done[chain.key] for chain in plan if chain.key in done)
        left = [chain for chain in plan if chain.key not in done]
        if left:
            for result in run(iter(left)):
                store.add(result)
                yield result
