"""The same evaluation on a Ray cluster: on each node one model process and its simulators, which share one queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deer_policies.errors import DeerError, SimulatorError
from deer_policies.interfaces import Policy
from deer_sim.chains import Chain
from deer_sim.fleet import Setup, run_chains
from deer_sim.results import ChainResult


def on_ray(address: str, setup: Setup, make_policy: Callable[[], Policy] | None, workers: int) -> Callable[..., Any]:
    """A `deer_sim.evaluation.Run` on every node of a cluster that is alive when it starts.

    Nodes need this package and the policy's files at the same paths. Results are those of a local run as long as the
    nodes compute alike: matrix products of other kinds of CPUs and GPUs may round differently.

    Args:
        address: of the cluster, as `ray.init` takes it.
        setup: for the simulators.
        make_policy: builds the policy on each node; None for the expert. It must be picklable.
        workers: simulator processes on each node.
    """
    return lambda chains: _run(address, setup, make_policy, workers, chains)


def _run(
    address: str, setup: Setup, make_policy: Callable[[], Policy] | None, workers: int, chains: Iterator[Chain]
) -> Iterator[ChainResult]:
    try:
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise SimulatorError("Ray is not installed; pip install -c constraints.txt 'deer_ros[ray]'") from error
    began_here = not ray.is_initialized()
    if began_here:
        try:
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SimulatorError(f"no Ray cluster answers at {address} ({error}); try `ray start --head`") from error
    try:
        queue = Queue(actor_options={"num_cpus": 0})
        queue.put_nowait_batch(list(chains))
        node = ray.remote(num_cpus=0, max_retries=0)(_node)
        streams: list[Any] = []
        for entry in ray.nodes():
            if entry["Alive"]:
                there = NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
                options = node.options(scheduling_strategy=there, num_returns="streaming")
                streams.append(options.remote(setup, make_policy, workers, queue))
        while streams:
            ready: Any = ray.wait(streams, num_returns=1)[0][0]
            try:
                result, files = ray.get(next(ready))
            except StopIteration:
                streams.remove(ready)
                continue
            except ray.exceptions.RayError as error:
                raise _cause(error) from error
            for name, content in files.items():
                path = setup.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield result
    finally:
        if began_here:
            ray.shutdown()


def _cause(error: Exception) -> Exception:
    """What went wrong on a node: its own words for a user, or Ray's."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, DeerError) else SimulatorError(f"a Ray node failed: {error}")


def _node(
    setup: Setup, make_policy: Callable[[], Policy] | None, workers: int, queue: Any
) -> Iterator[tuple[ChainResult, dict[str, bytes]]]:
    """Runs on a node: takes chains from the queue until it is empty; files are sent back, for nodes share no disk."""
    from ray.util.queue import Empty

    def chains() -> Iterator[Chain]:
        while True:
            try:
                yield queue.get_nowait()
            except Empty:
                return

    policy = None if make_policy is None else make_policy()
    with TemporaryDirectory(prefix="deer_ray_") as folder:
        here = Path(folder)
        for result in run_chains(chains(), replace(setup, folder=here), policy, workers):
            yield result, {name: (here / name).read_bytes() for name in (result.film, result.steps) if name}
