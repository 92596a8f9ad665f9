"""`deer crosscheck`: both back ends on the same actions, and what it refuses."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from deer_ros.cli.main import main
from deer_sim.calvin.recording import read_recording
from tests.sim.calvin_data import complete_data


def test_both_back_ends_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("hydra") is None and "CALVIN_PYTHON" not in os.environ:
        pytest.skip("needs an interpreter that runs calvin_env; name it in the variable CALVIN_PYTHON")
    path = tmp_path / "walk.npz"
    data = ["--calvin-data", str(complete_data())]
    assert main(["crosscheck", "--env", "calvin:A", "--seed", "4", "--steps", "50", "--out", str(path), *data]) == 0
    assert "calvin:A, seed 4: 50 steps, holds: robot_obs by 0, scene_obs by 0," in capsys.readouterr().out
    assert read_recording(path).rgb_step.tolist() == [0, 25, 50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "playtable:D"], "the official package has no scene playtable:D; use calvin:D"),
        (["--steps", "0"], "--steps is 0, --seed 0; at least 1 and 0 are needed"),
        (["--calvin-data", "/nowhere"], "holds no package calvin_env"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crosscheck", *arguments]) == 2
    assert message in capsys.readouterr().err
