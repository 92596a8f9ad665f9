"""Tests of the subcommand `deer demo` without a running stack: options, exit status, what it writes and says."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import deer_policies.deer.checkpoint
import deer_ros.bringup
from deer_policies.errors import CheckpointError, ConfigError, SimulatorError
from deer_policies.interfaces import ExitReport, PolicyInfo
from deer_ros.cli import provenance
from deer_ros.cli.demo import command, publish
from deer_ros.cli.demo.record import DemoRecord, SubtaskRecord
from deer_ros.errors import StackError
from deer_sim.calvin.sequences import task_sequences
from deer_sim.film import Shot


def parse(out: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(["--out", str(out), *words])


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy with two exits whose language model costs 0.02 GMAC."""
    stand_in = SimpleNamespace(
        info=PolicyInfo("small", (0, 1)), costs=SimpleNamespace(llm_gmac=lambda exit_index: 0.02)
    )
    monkeypatch.setattr(deer_policies.deer.checkpoint, "load_policy", lambda name: stand_in)


def perform_with(
    monkeypatch: pytest.MonkeyPatch, solved: int, done: int = 5, cause: BaseException | None = None
) -> None:
    """Lets the demonstration do `done` subtasks of two steps, the first `solved` of them with success."""
    report = ExitReport(0, 0, (), (), 0.01, 0.02, 0.02, 0.04, 3.0)
    image = np.zeros((84, 84, 3), np.uint8)

    def perform(arguments: Any, chain: Any, budgets: Any, record: DemoRecord, *rest: Any) -> tuple[DemoRecord, Any]:
        subtasks = tuple(
            SubtaskRecord(
                subtask.task,
                subtask.instruction,
                number < solved,
                "",
                2,
                budgets.first_gmac,
                tuple(
                    Shot(image, image, subtask.instruction, number, step, report, budgets.first_gmac) for step in (1, 2)
                ),
            )
            for number, subtask in enumerate(chain.subtasks[:done])
        )
        return replace(record, subtasks=subtasks, environment="playtable:D", renderer="tiny"), cause

    monkeypatch.setattr(command, "perform", perform)
    monkeypatch.setattr(publish, "END_CARD_FRAMES", 1)


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(("solved", "status"), [(5, 0), (4, 0), (3, 1), (0, 1)])
def test_exit_status_says_whether_four_of_five_were_solved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], solved: int, status: int
) -> None:
    perform_with(monkeypatch, solved)
    assert command.run(parse(tmp_path)) == status
    (folder,) = tmp_path.iterdir()
    assert f"{solved} of 5 instructions carried out; see {folder / 'report.html'}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"film.mp4", "report.json", "report.html"}


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize("cause", [KeyboardInterrupt(), StackError("node safety was ended by SIGKILL")])
def test_cut_short_demonstration_is_written_and_its_cause_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cause: BaseException
) -> None:
    perform_with(monkeypatch, solved=2, done=2, cause=cause)
    with pytest.raises(type(cause)):
        command.run(parse(tmp_path))
    (folder,) = tmp_path.iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert (len(report["subtasks"]), report["planned"], report["video"]) == (2, 5, "film.mp4")


@pytest.mark.usefixtures("policy")
def test_report_names_a_command_that_makes_it_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    perform_with(monkeypatch, 5)
    command.run(parse(tmp_path, "--seed", "3", "--budgets", "0.9", "0.3", "--policy", "my policy.safetensors"))
    (folder,) = tmp_path.iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert report["seed"] == 3
    assert [subtask["task"] for subtask in report["subtasks"]] == list(task_sequences(1, 3)[0].tasks)
    assert report["subtasks"][0]["budget"] == pytest.approx(0.9 * 0.02)
    words = shlex.split(report["command"])
    assert words[:2] == ["deer", "demo"]
    again = parse(tmp_path, *words[2:])
    assert (again.seed, again.budgets, again.policy) == (3, [0.9, 0.3], "my policy.safetensors")


@pytest.mark.usefixtures("policy")
def test_stack_that_does_not_start_is_reported_and_writes_no_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Broken:
        def __init__(self, config: Any) -> None: ...

        def __enter__(self) -> None:
            raise StackError("node policy ended with status 1")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(deer_ros.bringup, "Stack", Broken)
    with pytest.raises(StackError, match="node policy"):
        command.run(parse(tmp_path))
    assert not list(tmp_path.rglob("report.*"))


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--max-steps", "0"], ConfigError),
        (["--budgets", "0.4", "0.8"], ConfigError),
        (["--budgets", "nan", "0.8"], ConfigError),
        (["--scene", "Z"], SimulatorError),
    ],
)
def test_wrong_option_is_refused_before_anything_is_written(tmp_path: Path, words: list[str], error: type) -> None:
    with pytest.raises(error):
        command.run(parse(tmp_path, *words))
    assert list(tmp_path.iterdir()) == []


def test_missing_checkpoint_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        command.run(parse(tmp_path, "--policy", "nobody"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("policy")
def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="--out"):
        command.run(parse(tmp_path / "taken"))


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_is_that_of_the_tree_and_tells_of_changes(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("1")
    assert provenance.commit(file) == ""
    git(tmp_path, "init", "-q")
    assert provenance.commit(file) == ""
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit(file) == head
    file.write_text("2")
    assert provenance.commit(file) == f"{head}-dirty"


def test_versions_name_what_is_installed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "DISTRIBUTIONS", ("numpy", "nobody-has-this"))
    found = provenance.versions()
    assert set(found) == {"python", "numpy"}
    assert found["numpy"] == np.__version__
