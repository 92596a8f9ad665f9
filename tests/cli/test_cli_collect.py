"""`deer collect`: its arguments reach the plan, and user errors end in one line and exit status 2."""

from pathlib import Path

import pytest

from deer_ros.cli.main import main
from deer_sim.dataset import CalvinDataset


def test_collects_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    arguments = ["collect", "--tasks", "turn_on_led", "--episodes", "1", "--workers", "1", "--undisturbed"]
    assert main([*arguments, "--out", str(folder)]) == 0
    assert "1 episodes" in capsys.readouterr().out
    assert [item.task for item in CalvinDataset(folder).annotations] == ["turn_on_led"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--scene", "E", "unknown scene"), ("--tasks", "fly", "fly"), ("--workers", "0", "workers")],
)
def test_wrong_arguments_are_told(
    option: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", option, value, "--out", str(tmp_path / "data")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
