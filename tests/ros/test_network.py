"""Nothing listens beyond loopback unless asked: the environments that say so, and the sockets of real processes."""

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from deer_policies.errors import ConfigError
from deer_ros import graph, network
from deer_ros.bringup import Stack, StackConfig, free_domain_id
from deer_ros.errors import StackError
from deer_ros.network import BoundSocket

LISTENER = """
import os, sys
from deer_ros import network
from deer_ros.client import StackClient
with StackClient(int(sys.argv[1])):
    print(*network.bound_sockets(os.getpid()), sep=";", flush=True)
"""
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("ROS_", "FAST", "DEER_"))}


def wide(pid):
    """The sockets of a process that other machines can reach."""
    return [bound for bound in network.bound_sockets(pid) if not bound.on_loopback]


def test_images_that_a_sockets_buffer_cannot_hold_are_told_with_the_remedy(monkeypatch, tmp_path):
    limit = tmp_path / "rmem_max"
    monkeypatch.setattr(network, "RECEIVE_LIMIT", limit)
    monkeypatch.setenv(network.CONFINED, "1")
    assert network.receive_buffer_trouble(2000) == "", "no such limit on this machine"
    limit.write_text("1999\n")
    assert network.receive_buffer_trouble(1999) == ""
    assert network.receive_buffer_trouble(2000).endswith("run: sudo sysctl -w net.core.rmem_max=2000")
    monkeypatch.delenv(network.CONFINED)
    assert network.receive_buffer_trouble(2000) == "", "shared memory, or a network of the user's own"


def test_a_stack_binds_nothing_beyond_loopback(tiny_checkpoint, tmp_path):
    overrides = {"policy": {"policy": str(tiny_checkpoint)}}
    with Stack(StackConfig(overrides=overrides, log_folder=tmp_path / "logs")) as stack:
        for name, process in stack.processes.items():
            assert network.bound_sockets(process.pid), name
            assert wide(process.pid) == [], name


def test_deer_up_binds_nothing_beyond_loopback_for_an_arm(tiny_checkpoint, tmp_path):
    """The command's own process, which has a client, and the nodes that it starts."""
    parameters = tmp_path / "arm.yaml"
    packaged = (graph.CONFIG_FOLDER / "arm.yaml").read_text()
    parameters.write_text(packaged.replace('gripper_output: "gripper_command"', 'gripper_output: "float64"'))
    command = [sys.executable, "-m", "deer_ros.cli.main", "up", "arm", "--policy", str(tiny_checkpoint)]
    command += ["--params", str(parameters)]
    command += ["--domain-id", str(free_domain_id()), "--logs", str(tmp_path / "logs")]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=PLAIN, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        try:
            assert any("ready" in line for line in process.stdout)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) == len(graph.BRINGUPS["arm"].nodes)
            for pid in (process.pid, *map(int, children)):
                assert network.bound_sockets(pid)
                assert wide(pid) == []
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            finally:
                process.kill()


def run_listener(environment):
    done = subprocess.run(
        [sys.executable, "-c", LISTENER, str(free_domain_id())],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip().split(";")


def test_a_client_binds_nothing_beyond_loopback_unless_its_environment_asks():
    assert all(" 127.0.0.1:" in bound for bound in run_listener(PLAIN))
    assert any(" 0.0.0.0:" in bound for bound in run_listener({**PLAIN, network.RANGE: "LOCALHOST"}))


def test_a_node_that_is_bound_wider_ends_and_says_where():
    """As if the middleware did not follow the profile, which an empty one brings about."""
    environment = network.environment(network.LOOPBACK, PLAIN) | {"FASTDDS_DEFAULT_PROFILES_FILE": "/dev/null"}
    environment["ROS_DOMAIN_ID"] = str(free_domain_id())
    environment[network.RANGE] = "LOCALHOST"
    done = subprocess.run(
        [sys.executable, "-m", "deer_ros.nodes.safety_node"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "listens beyond loopback (udp " in done.stderr
    assert "udp 0.0.0.0:" in done.stderr


def test_the_loopback_network_is_a_profile():
    wanted = network.environment(network.LOOPBACK, {"PATH": "/bin", network.RANGE: "SUBNET"})
    assert wanted["PATH"] == "/bin"
    assert wanted[network.RANGE] == "SYSTEM_DEFAULT"
    assert wanted["FASTDDS_DEFAULT_PROFILES_FILE"] == str(network.PROFILE)
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in wanted
    jazzy = network.environment(network.LOOPBACK, {"ROS_DISTRO": "jazzy"})
    assert jazzy["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(network.PROFILE)
    assert "127.0.0.1" in network.PROFILE.read_text()


@pytest.mark.parametrize(
    "given", [{"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, {"FASTDDS_DEFAULT_PROFILES_FILE": "/my/own.xml"}]
)
def test_other_middleware_and_own_profiles_stay_on_the_machine(given):
    assert network.environment(network.LOOPBACK, given) == {**given, network.RANGE: "LOCALHOST"}


def test_the_subnet_is_there_when_asked_for():
    inherited = network.environment(network.LOOPBACK, {"PATH": "/bin"})
    assert network.environment(network.SUBNET, inherited) == {"PATH": "/bin", network.RANGE: "SUBNET"}
    assert StackConfig(network=network.SUBNET).environment({})[network.RANGE] == "SUBNET"
    with pytest.raises(ConfigError, match="network is 'moon'; it must be one of loopback, subnet"):
        StackConfig(network="moon")


def test_sockets_of_this_process_are_told():
    with socket.socket() as listening, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        listening.bind(("127.0.0.1", 0))
        bound.bind(("0.0.0.0", 0))
        ports = listening.getsockname()[1], bound.getsockname()[1]
        found = network.bound_sockets(os.getpid())
        assert BoundSocket("tcp", "127.0.0.1", ports[0]) not in found
        listening.listen()
        found = network.bound_sockets(os.getpid())
        assert BoundSocket("tcp", "127.0.0.1", ports[0]) in found
        assert BoundSocket("udp", "0.0.0.0", ports[1]) in wide(os.getpid())


def test_version_6_addresses_are_told():
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listening.listen()
        assert BoundSocket("tcp6", "::1", listening.getsockname()[1]) in network.bound_sockets(os.getpid())


def test_a_process_that_may_be_bound_wider_is_let_be(monkeypatch):
    monkeypatch.delenv(network.CONFINED, raising=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("0.0.0.0", 0))
        network.refuse_wide_sockets()
        monkeypatch.setenv(network.CONFINED, "1")
        with pytest.raises(StackError, match="listens beyond loopback"):
            network.refuse_wide_sockets()


@pytest.mark.parametrize(
    ("loaded", "given", "wanted"),
    [
        (False, {}, "SYSTEM_DEFAULT"),
        (True, {}, "LOCALHOST"),
        (False, {network.RANGE: "SUBNET"}, "SUBNET"),
    ],
)
def test_a_client_takes_what_its_process_can_have(monkeypatch, loaded, given, wanted):
    """Fast DDS has read its profiles already in a process that has made nodes: only LOCALHOST is safe there."""
    monkeypatch.setattr(os, "environ", dict(given))
    if loaded:
        monkeypatch.setitem(sys.modules, "rclpy", object())
    else:
        monkeypatch.delitem(sys.modules, "rclpy", raising=False)
    network.enter(None)
    assert os.environ[network.RANGE] == wanted
    assert (os.environ.get(network.CONFINED) == "1") is (wanted == "SYSTEM_DEFAULT")


def test_a_client_that_is_told_leaves_what_it_inherited(monkeypatch):
    monkeypatch.setattr(os, "environ", network.environment(network.LOOPBACK, {"PATH": "/bin"}))
    network.enter(network.SUBNET)
    assert dict(os.environ) == {"PATH": "/bin", network.RANGE: "SUBNET"}
