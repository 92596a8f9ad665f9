"""Launch files: their node graph everywhere, and run by ROS's own launch library where that is installed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deer_policies.speech.audio import RATE_HZ, write_wav
from deer_ros import graph, launching
from deer_ros.bringup import free_domain_id
from deer_ros.client import StackClient
from deer_ros.errors import StackError
from deer_ros.reports import Outcome

ROOT = Path(__file__).resolve().parents[2]
HAS_LAUNCH = importlib.util.find_spec("launch_ros") is not None
WITH_LAUNCH = pytest.mark.skipif(
    not HAS_LAUNCH, reason="launch_ros is no wheel; docs/development.md says how to install it from its sources"
)


class Context:
    """As much of launch's context as node settings read."""

    def __init__(self, bringup, **given):
        self.launch_configurations = {
            "params": "file.yaml",
            "namespace": "",
            "security": "",
            "network": "loopback",
            **{argument.name: "" for argument in bringup.arguments},
            **{remap.name: remap.topic for remap in bringup.remaps},
            **given,
        }


@pytest.mark.parametrize("name", list(graph.BRINGUPS))
def test_every_executable_is_a_console_script_and_every_module_is_there(name):
    scripts = (ROOT / "setup.py").read_text()
    for node in (*graph.BRINGUPS[name].nodes, graph.SUPERVISOR):
        assert f'"{node.executable} = {node.module}:main"' in scripts
        assert importlib.util.find_spec(node.module) is not None


def test_arguments_and_remaps_reach_the_nodes():
    bringup = graph.BRINGUPS["arm"]
    policy = next(node for node in bringup.nodes if node.name == "policy")
    context = Context(bringup, threads="3", namespace="left", static_image="/front/color/image_raw")
    settings = launching._settings(bringup, policy, context)
    assert settings["namespace"] == "left"
    assert settings["parameters"] == ["file.yaml", {"threads": 3}]
    assert settings["remappings"] == [(graph.STATIC_IMAGE, "/front/color/image_raw")]
    assert launching._settings(bringup, policy, Context(bringup))["remappings"] == []


@pytest.fixture
def overlay(tmp_path):
    """Environment in which `ros2 launch` finds deer_ros as colcon would install it."""
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "deer_ros").touch()
    scripts = tmp_path / "lib" / "deer_ros"
    scripts.mkdir(parents=True)
    for name in ("simulator", "safety", "policy", "microphone", "stop_word", "speech", "voice", "supervisor"):
        script = scripts / f"{name}_node"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deer_ros.nodes.{name}_node "$@"\n')
        script.chmod(0o755)
    paths = os.pathsep.join((str(tmp_path), sys.prefix, os.environ.get("AMENT_PREFIX_PATH", "")))
    return {**os.environ, "AMENT_PREFIX_PATH": paths, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Launched:
    """`ros2 launch` of one of our files, as a process with a deadline."""

    def __init__(self, name, environment, log, *arguments):
        self.domain_id = free_domain_id()
        program = "import sys; from ros2cli.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "launch", str(ROOT / "launch" / f"{name}.launch.py"), *arguments]
        own = {
            "ROS_DOMAIN_ID": str(self.domain_id),
            "ROS_LOG_DIR": str(log.parent / "ros_logs"),
            "PYTHONUNBUFFERED": "1",
        }
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, env={**environment, **own}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def pids(self, name):
        """Processes of a node, from their command lines."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode().split("\0")
                domain = f"ROS_DOMAIN_ID={self.domain_id}".encode() in (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if domain and f"deer_ros.nodes.{name}_node" in command:
                found.append(int(folder.name))
        return found


@WITH_LAUNCH
@pytest.mark.slow
def test_the_simulation_is_launched_follows_and_comes_back_after_the_policy_died(overlay, tiny_checkpoint, tmp_path):
    launched = Launched("simulation", overlay, tmp_path / "launch.log", f"policy:={tiny_checkpoint}", "scene:=B")
    try:
        with StackClient(launched.domain_id) as client:
            client.wait_ready(60.0)
            until_active(client)
            assert client.reset(1).environment == "playtable:B"
            assert client.follow("open the drawer", max_steps=3, timeout_s=30.0).outcome is Outcome.TIMEOUT
            (policy,) = launched.pids("policy")
            os.kill(policy, signal.SIGKILL)
            deadline = time.monotonic() + 60.0
            while launched.log.read_text().count("is ready; exits") < 2:
                assert time.monotonic() < deadline, launched.log.read_text()
                time.sleep(0.2)
            until_active(client)
            os.kill(launched.pids("safety")[0], signal.SIGKILL)
            assert launched.process.wait(30) is not None
            for name in ("simulator", "policy", "supervisor"):
                assert launched.pids(name) == []
    finally:
        launched.end()


def until_active(client):
    """Waits until a goal is taken."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            if client.follow("open the drawer", max_steps=1, timeout_s=10.0).outcome is not Outcome.REJECTED:
                return
        except StackError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.3)


@WITH_LAUNCH
@pytest.mark.slow
def test_in_a_namespace_all_nodes_become_active_too(overlay, tiny_checkpoint, tmp_path):
    launched = Launched("simulation", overlay, tmp_path / "launch.log", f"policy:={tiny_checkpoint}", "namespace:=left")
    try:
        deadline = time.monotonic() + 60.0
        while "[left.supervisor]: all nodes are active" not in launched.log.read_text():
            assert time.monotonic() < deadline, launched.log.read_text()
            time.sleep(0.2)
    finally:
        launched.end()


@WITH_LAUNCH
@pytest.mark.slow
def test_the_voice_is_launched_and_each_of_its_nodes_comes_back(overlay, tmp_path):
    write_wav(tmp_path / "quiet.wav", np.zeros(300 * RATE_HZ, np.float32))
    sound = ("source:=file", f"file:={tmp_path / 'quiet.wav'}", "output:=topic", "recogniser:=grammar")
    launched = Launched("voice", overlay, tmp_path / "launch.log", *sound)

    def until_active(times):
        deadline = time.monotonic() + 60.0
        while launched.log.read_text().count("all nodes are active") < times:
            assert time.monotonic() < deadline, launched.log.read_text()
            time.sleep(0.2)

    try:
        until_active(1)
        names = [node.name for node in graph.BRINGUPS["voice"].nodes]
        for times, name in enumerate(names, 2):
            (process,) = launched.pids(name)
            os.kill(process, signal.SIGKILL)
            until_active(times)
        assert launched.end() == 0
        assert [launched.pids(name) for name in names] == [[]] * len(names)
    finally:
        launched.end()


@WITH_LAUNCH
@pytest.mark.parametrize("name", list(graph.BRINGUPS))
def test_show_args_tells_every_argument_with_a_description(name, overlay):
    program = "import sys; from ros2cli.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "launch", str(ROOT / "launch" / f"{name}.launch.py"), "--show-args"]
    told = subprocess.run(command, env=overlay, capture_output=True, text=True, timeout=60, check=True).stdout
    bringup = graph.BRINGUPS[name]
    for item in (*bringup.arguments, *bringup.remaps):
        assert f"'{item.name}':\n        {item.description}" in told
