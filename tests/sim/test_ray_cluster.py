"""An evaluation on two Ray nodes of this machine, against the same one without Ray."""

from __future__ import annotations

import functools

import pytest

from deer_policies.errors import SimulatorError
from deer_ros.cli.eval import make_policy
from deer_sim.chains import task_chains
from deer_sim.evaluation import evaluate, local
from deer_sim.fleet import Setup
from deer_sim.ray_cluster import on_ray
from deer_sim.results import read_results

ray = pytest.importorskip("ray", reason="Ray is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.slow


# Ray takes 127.0.0.1 for the machine's outer address; this one stays on loopback.
HERE = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "include_dashboard": False, "object_store_memory": 80 * 2**20}
PATIENCE = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_raylet_start_wait_time_s": "250",
    "RAY_worker_niceness": "0",
}
"""On a busy machine a node takes a minute to start, and workers at Ray's own niceness of 15 hardly run."""


@pytest.fixture(scope="module")
def address():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**PATIENCE, "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=HERE)
        cluster.add_node(**HERE)
        cluster.wait_for_nodes(timeout=250)
        ray.init(address=cluster.address, _node_ip_address=HERE["node_ip_address"], log_to_driver=False)
        yield cluster.address
        ray.shutdown()
        cluster.shutdown()


def by_key(results):
    return sorted(results, key=lambda result: result.key)


def test_two_nodes_give_what_one_machine_gives(address, tmp_path):
    plan = task_chains("D", ["turn_on_led", "open_drawer"], 2, 7)
    factory = functools.partial(make_policy, "deer-nano")
    setup = Setup("playtable:D", max_steps=4, films=frozenset([plan[0].key]), folder=tmp_path / "ray")
    there = by_key(evaluate(plan, tmp_path / "ray", on_ray(address, setup, factory, 1)))
    here = by_key(evaluate(plan, tmp_path / "local", local(Setup("playtable:D", max_steps=4), factory(), 2)))
    assert [result.subtasks for result in there] == [result.subtasks for result in here]
    assert by_key(read_results(tmp_path / "ray")) == there
    films = [result.film for result in there if result.film]
    assert len(films) == 1
    assert (tmp_path / "ray" / films[0]).stat().st_size > 1000


def test_what_goes_wrong_on_a_node_is_told(address, tmp_path):
    plan = task_chains("D", ["turn_on_led"], 1, 7)
    with pytest.raises(SimulatorError, match="unknown scene 'Z'"):
        list(evaluate(plan, tmp_path, on_ray(address, Setup("playtable:Z", expert=True), None, 1)))
