"""`deer replay`: its exit status tells whether every recording holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deer_ros.cli.main import main
from deer_sim.calvin.environment import CalvinTable
from deer_sim.calvin.recording import Recording, write_recording
from deer_sim.calvin.replay import record
from tests.sim.calvin_data import some_data


@pytest.fixture(scope="module")
def recorded() -> Recording:
    """A short trajectory in scene B, with actions beyond [-1, 1], which official environments don't clip."""
    rng = np.random.default_rng(0)
    actions = np.hstack([rng.uniform(-2.0, 2.0, size=(12, 6)), np.ones((12, 1))])
    with CalvinTable("B", some_data(), cameras=False, exact=True) as table:
        start = table.reset(seed=1)
        return record(table, "B", start.robot_obs, start.scene_obs, actions, picture_steps=(12,))


def test_the_status_says_whether_all_hold(
    recorded: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, cut = (str(tmp_path / f"{name}.npz") for name in ("good", "bad", "cut"))
    data = ["--calvin-data", str(some_data())]
    write_recording(Path(good), recorded)
    write_recording(Path(bad), replace(recorded, scene_obs=recorded.scene_obs + 3e-4))
    Path(cut).write_bytes(Path(good).read_bytes()[:1000])
    assert main(["replay", good, *data]) == 0
    told = capsys.readouterr().out
    assert "good.npz: 12 steps, holds: robot_obs by 0, scene_obs by 0, the same tasks solved at every step" in told
    assert "1 of 1 recordings hold" in told
    assert main(["replay", good, bad, *data]) == 1
    told = capsys.readouterr().out
    assert "bad.npz: 12 steps, DIFFERS: robot_obs by 0, scene_obs by 0.0003" in told
    assert "1 of 2 recordings hold" in told
    assert main(["replay", good, cut, *data]) == 2
    assert "can't read the recording" in capsys.readouterr().err


def test_data_that_is_not_there_is_told(
    recorded: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "good.npz", recorded)
    assert main(["replay", str(tmp_path / "good.npz"), "--calvin-data", str(tmp_path)]) == 2
    assert "holds no CALVIN scene data" in capsys.readouterr().err
