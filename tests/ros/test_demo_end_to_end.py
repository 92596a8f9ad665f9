"""Tests of `deer demo` as a person runs it: real processes over real ROS 2, with an untrained policy and few steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("deer_msgs")

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import Checkpoint, save
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.thresholds import Calibration
from deer_policies.deer.tokenizer import Tokenizer

DEADLINE_S = 300.0


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of deer-nano with random weights, whose criterion values let every exit be taken."""
    import torch

    torch.manual_seed(0)
    config = deer_nano()
    tokenizer = Tokenizer.train(["open the drawer", "turn on the light"], config.language.vocabulary, max_tokens=32)
    values = torch.rand(len(config.language.exit_layers), 200) * 0.05
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    save(path, Checkpoint(DeerModel(config), tokenizer, Calibration(values)))
    return path


def start_demo(policy: Path, out: Path, max_steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deer_ros.cli.main", "demo", "--policy", str(policy), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--max-steps", str(max_steps)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that run in the background of a shell ignore Ctrl-C, and their children would too.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def nodes_of(demo: int) -> list[int]:
    """Process ids of the nodes that the demo has started."""
    shown = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()[1:]]
    return [int(pid) for pid, parent, words in rows if int(parent) == demo and "deer_ros.nodes" in words]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_demo_comes_to_its_end_and_leaves_film_report_and_page(untrained: Path, tmp_path: Path) -> None:
    demo = start_demo(untrained, tmp_path, max_steps=20)
    try:
        said, _ = demo.communicate(timeout=DEADLINE_S)
    finally:
        demo.kill()
    # An untrained policy solves nothing, and the exit status says so.
    assert demo.returncode == 1, said
    assert "0 of 5 instructions carried out" in said
    (folder,) = tmp_path.iterdir()
    assert {"film.mp4", "report.json", "report.html"} <= {path.name for path in folder.iterdir()}, said
    report = json.loads((folder / "report.json").read_text())
    assert len(report["subtasks"]) == 5
    for entry in report["subtasks"]:
        assert entry["steps"] == 20
        assert entry["policy_steps"] == len(entry["exits"]) == sum(entry["exit_counts"].values())
    assert report["subtasks"][0]["budget"] == pytest.approx(0.8 * report["full_gmac"])
    assert report["subtasks"][4]["budget"] == pytest.approx(0.4 * report["full_gmac"])
    assert report["environment"] == "playtable:D"


@pytest.mark.slow
def test_ctrl_c_stops_the_stack_and_keeps_what_was_recorded(untrained: Path, tmp_path: Path) -> None:
    demo = start_demo(untrained, tmp_path, max_steps=300)
    try:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if "step  30" in line:
                break
        nodes = nodes_of(demo.pid)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=DEADLINE_S)
    finally:
        demo.kill()
    assert demo.returncode == 130, "".join(lines) + said
    assert len(nodes) == 3
    assert [pid for pid in nodes if alive(pid)] == []
    (folder,) = tmp_path.iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert len(report["subtasks"]) == 1
    assert report["subtasks"][0]["success"] is False
    assert report["subtasks"][0]["steps"] >= 30
    assert (folder / report["video"]).stat().st_size > 10_000
    assert "cut short" in (folder / "report.html").read_text()
