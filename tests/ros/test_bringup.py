"""Bringing a stack up: settings are checked before anything starts, and failures say what failed."""

import argparse
import time
from types import SimpleNamespace

import pytest
import yaml

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.bringup import STUCK_S, WATCH_PERIOD_S, Stack, StackConfig, free_domain_id
from deer_ros.cli import up
from deer_ros.errors import StackError


@pytest.mark.parametrize("name", list(graph.BRINGUPS))
def test_every_bringup_has_its_files(name):
    """The parameter file names exactly the nodes that are started, and the launch file is there."""
    bringup = graph.BRINGUPS[name]
    sections = yaml.safe_load((graph.CONFIG_FOLDER / f"{name}.yaml").read_text())
    assert sorted(sections) == sorted(f"/**/{node.name}" for node in bringup.nodes)
    launch_file = graph.CONFIG_FOLDER.parents[1] / "launch" / f"{name}.launch.py"
    assert f'launch_description("{name}")' in launch_file.read_text()
    assert {argument.node for argument in bringup.arguments} <= {node.name for node in bringup.nodes}


def test_only_the_simulation_moves_without_arming():
    arm = yaml.safe_load((graph.CONFIG_FOLDER / "arm.yaml").read_text())
    assert arm["/**/safety"]["ros__parameters"]["arm_on_start"] is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bringup": "moon"}, "there are simulation, arm"),
        ({"overrides": {"plicy": {}}}, "no node plicy"),
        ({"bringup": "arm", "overrides": {"simulator": {"scene": "A"}}}, "no node simulator"),
        ({"domain_id": 200}, "domain_id is 200"),
        ({"parameter_file": graph.CONFIG_FOLDER / "missing.yaml"}, "no parameter file"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        StackConfig(**settings)


def test_what_the_command_line_gives_goes_to_its_node():
    parser = argparse.ArgumentParser()
    up.configure(parser)
    arguments = parser.parse_args(["--scene", "B", "--threads", "3", "--policy", "x.safetensors"])
    assert up.overrides(arguments) == {"simulator": {"scene": "B"}, "policy": {"threads": 3, "policy": "x.safetensors"}}
    with pytest.raises(ConfigError, match="threads is 'many'"):
        up.overrides(parser.parse_args(["--threads", "many"]))


def test_free_domains_are_in_range():
    assert all(1 <= free_domain_id() <= 101 for _ in range(5))


def test_a_policy_that_is_not_there_is_told_and_everything_is_stopped(tmp_path):
    config = StackConfig(overrides={"policy": {"policy": "no-such-policy"}}, log_folder=tmp_path)
    stack = Stack(config)
    with pytest.raises(StackError, match="no-such-policy"), stack:
        pass
    assert all(process.poll() is not None for process in stack.processes.values())


class Idle:
    """Processes that run until they are stopped."""

    def __init__(self) -> None:
        self.stopped = False

    def ended(self, name: str) -> str:
        return ""

    def stop(self) -> None:
        self.stopped = True


def test_a_stack_whose_own_ros_side_hangs_is_stopped():
    stack = Stack(StackConfig(bringup="arm"))
    stack._processes = Idle()
    stack._supervisor = SimpleNamespace(ticked_s=time.monotonic())
    stack._watcher.start()
    time.sleep(3 * WATCH_PERIOD_S)
    stack.check()
    stack._supervisor.ticked_s -= STUCK_S
    stack._watcher.join(5.0)
    assert stack._processes.stopped
    with pytest.raises(StackError, match=r"ROS 2 hangs: nothing was heard or sent for .*; everything was stopped"):
        stack.check()


def test_a_parameter_out_of_range_ends_the_bringup_with_its_name(tmp_path):
    config = StackConfig(overrides={"safety": {"linear_speed_m_s": 50.0}}, log_folder=tmp_path)
    with pytest.raises(StackError, match="safety ended with status 2: parameter linear_speed_m_s"), Stack(config):
        pass
