"""Tests of `deer doctor`: each check on a machine that is fine, and on one that is not."""

from __future__ import annotations

import argparse
import builtins
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deer_policies.errors import CheckpointError, ConfigError
from deer_ros.cli.doctor import checks, command
from deer_ros.cli.doctor.finding import Finding, ProbeResult, Status, probe

OK = Finding("fine", Status.OK, "all is well")
BROKEN = Finding("bad", Status.BROKEN, "gone", "bring it back")


def arguments(as_json: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(["--json"] if as_json else [])


def answer(monkeypatch: pytest.MonkeyPatch, succeeded: bool, output: str) -> None:
    monkeypatch.setattr(checks, "probe", lambda code: ProbeResult(succeeded, output))


def hide(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """Makes `import hidden` fail, as on a machine without it."""
    genuine = builtins.__import__

    def without(name: str, *details: Any, **more: Any) -> Any:
        if name == hidden or name.startswith(hidden + "."):
            raise ImportError(f"No module named {name!r}")
        return genuine(name, *details, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(checks.importlib, "import_module", without)


def test_a_finding_that_is_not_ok_must_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="names no remedy"):
        Finding("memory", Status.BROKEN, "none left")


def test_probe_tells_how_it_ended() -> None:
    assert probe("print('hello')") == ProbeResult(True, "hello")
    assert probe("raise ValueError('no such driver')") == ProbeResult(False, "ValueError: no such driver")
    assert probe("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == ProbeResult(
        False, "crashed with signal 11"
    )
    assert probe("import time; time.sleep(60)", timeout_s=0.3) == ProbeResult(False, "no answer within 0.3 s")


def test_probed_nodes_stay_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    assert probe("import os; print(os.environ['DEER_LOOPBACK_ONLY'])").output == "1"


def test_python_of_another_version_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 11, 7, "final", 0))
    assert checks.check_python().status is Status.OK
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    finding = checks.check_python()
    assert finding.status is Status.NOTE
    assert "PYTHON=python3.11" in finding.remedy


def test_this_machine_makes_a_node() -> None:
    pytest.importorskip("rclpy")
    finding = checks.check_rclpy()
    assert finding.status is Status.OK, finding
    assert "rmw_" in finding.detail


def test_middleware_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_of_nobody")
    finding = checks.check_rclpy()
    assert finding.status is Status.BROKEN
    assert "rmw_of_nobody" in finding.remedy


def test_missing_ros_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    answer(monkeypatch, False, "ModuleNotFoundError: No module named 'rclpy'")
    finding = checks.check_rclpy()
    assert (finding.status, finding.remedy) == (Status.BROKEN, checks.SETUP_REMEDY)


def test_messages_that_are_not_built_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, False, "ModuleNotFoundError: No module named 'deer_msgs'")
    finding = checks.check_messages()
    assert finding.status is Status.BROKEN
    assert "./msgs" in finding.remedy


@pytest.mark.parametrize("domain", ["-1", "102", "left", ""])
def test_domain_outside_of_the_range_is_broken(monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    finding = checks.check_network()
    assert finding.status is Status.BROKEN
    assert repr(domain) in finding.detail


def test_discovery_beyond_this_machine_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert checks.check_network() == Finding("ros network", Status.OK, "domain 7, discovery range LOCALHOST")
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE")
    assert checks.check_network().status is Status.NOTE


def test_this_machine_draws() -> None:
    pytest.importorskip("pybullet")
    assert checks.check_renderer().status is Status.OK


def test_an_empty_picture_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pybullet")
    blind = checks.TINY_PROBE.replace("[1, 1, 1], [0, 0, 0]", "[1, 1, 1], [2, 2, 2]")
    assert blind != checks.TINY_PROBE
    monkeypatch.setattr(checks, "TINY_PROBE", blind)
    finding = checks.check_renderer()
    assert (finding.status, finding.detail) == (Status.BROKEN, "AssertionError: the picture is empty")


def test_egl_that_crashes_is_only_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, False, "crashed with signal 11")
    finding = checks.check_egl()
    assert finding.status is Status.NOTE
    assert "signal 11" in finding.detail
    answer(monkeypatch, True, "GL_RENDERER=llvmpipe\ndraws")
    assert checks.check_egl() == Finding("renderer egl", Status.OK, "PyBullet draws through EGL: llvmpipe")


def test_video_needs_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", SimpleNamespace(__version__="1.0", codecs_available={"libx264"}))
    assert checks.check_video().status is Status.OK
    monkeypatch.setitem(sys.modules, "av", SimpleNamespace(__version__="1.0", codecs_available={"mpeg4"}))
    assert checks.check_video().status is Status.BROKEN


@pytest.mark.parametrize(
    ("library", "check"),
    [("av", checks.check_video), ("torch", checks.check_torch), ("deer_policies.deer", checks.check_checkpoint)],
)
def test_missing_library_is_broken(monkeypatch: pytest.MonkeyPatch, library: str, check: Any) -> None:
    hide(monkeypatch, library)
    finding = check()
    assert finding.status is Status.BROKEN
    assert "No module named" in finding.detail


def test_processor_without_bfloat16_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(checks, "cpu_features", lambda: frozenset({"avx2"}))
    assert checks.check_torch().status is Status.NOTE
    monkeypatch.setattr(checks, "cpu_features", lambda: frozenset({"avx2", "amx_bf16"}))
    assert checks.check_torch().status is Status.OK


def fake_torch(available: bool) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_available=lambda: available,
        get_device_properties=lambda index: SimpleNamespace(total_memory=80 * 2**30),
        get_device_name=lambda index: "Some GPU",
    )
    return SimpleNamespace(cuda=cuda, __version__="2.0+cpu")


def test_gpu_that_torch_cannot_use_is_told_apart_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(True))
    assert checks.check_gpu() == Finding("gpu", Status.OK, "Some GPU, 80 GiB")
    monkeypatch.setitem(sys.modules, "torch", fake_torch(False))
    monkeypatch.setattr(checks.shutil, "which", lambda program: None)
    assert checks.check_gpu().detail == "none"
    monkeypatch.setattr(checks.shutil, "which", lambda program: "/usr/bin/nvidia-smi")
    assert "CUDA build" in checks.check_gpu().remedy


def test_single_and_busy_processors_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda process: {0, 1})
    assert checks.check_processors().status is Status.OK
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda process: {0})
    assert "slower" in checks.check_processors().remedy
    monkeypatch.setattr(checks.os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(checks.os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    assert "busy" in checks.check_processors().remedy


@pytest.mark.parametrize(("free", "status"), [(8.0, Status.OK), (0.2, Status.BROKEN), (None, Status.NOTE)])
def test_memory_is_held_against_what_the_demo_takes(
    monkeypatch: pytest.MonkeyPatch, free: float | None, status: Status
) -> None:
    monkeypatch.setattr(checks, "available_memory_gib", lambda: free)
    assert checks.check_memory().status is status


def test_full_disk_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    assert checks.check_disk().status is Status.BROKEN
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    assert checks.check_disk().status is Status.OK


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="this system has no /proc/meminfo")
def test_linux_tells_memory_and_processor() -> None:
    free = checks.available_memory_gib()
    assert free is not None
    assert 0.01 < free < 1e5
    assert checks.cpu_features()


def test_damaged_checkpoint_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = pytest.importorskip("deer_policies.deer.checkpoint")

    def damaged(name: str) -> None:
        raise CheckpointError("deer-nano.safetensors is cut short")

    monkeypatch.setattr(checkpoint, "load_policy", damaged)
    finding = checks.check_checkpoint()
    assert (finding.status, finding.detail) == (Status.BROKEN, "deer-nano.safetensors is cut short")


def test_failing_check_does_not_end_the_examination() -> None:
    def check_roof() -> Finding:
        raise RuntimeError("ladder missing")

    findings = list(command.examine([check_roof, lambda: OK]))
    assert [finding.status for finding in findings] == [Status.BROKEN, Status.OK]
    assert findings[0].name == "roof"
    assert "ladder missing" in findings[0].detail


@pytest.mark.parametrize(("found", "status"), [([OK], 0), ([OK, BROKEN], 1)])
def test_exit_status_and_json_say_whether_the_main_job_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: list[Finding], status: int
) -> None:
    monkeypatch.setattr(command, "CHECKS", [lambda finding=finding: finding for finding in found])
    assert command.run(arguments(as_json=True)) == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["ready"] is (status == 0)
    assert printed["findings"][-1]["status"] == found[-1].status.value


def test_table_shows_the_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        command, "CHECKS", [lambda: OK, lambda: Finding("bad", Status.BROKEN, "[gone]", "bring [it] back")]
    )
    assert command.run(arguments(as_json=False)) == 1
    printed = capsys.readouterr().out
    assert "[gone]" in printed
    assert "→ bring [it] back" in printed
    assert "mend bad first" in printed
