"""The official package as a back end: its traps, tried on stand-ins that fail as it does, and the package itself."""

import os
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.calvin.official import OfficialTable
from deer_sim.calvin.recording import read_recording
from deer_sim.calvin.replay import replay
from deer_sim.engine.cameras import EGL
from tests.sim.calvin_data import complete_data, recording

DOWN = np.array([0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0])


def stand_in(folder, code):
    """A package calvin_env that runs some code when it is imported."""
    (folder / "calvin_env").mkdir(exist_ok=True)
    (folder / "calvin_env" / "__init__.py").write_text(code)
    return folder


@pytest.fixture(autouse=True)
def this_interpreter(request, monkeypatch):
    """Stand-ins run here, whatever CALVIN_PYTHON says."""
    if "official" not in request.fixturenames:
        monkeypatch.delenv("CALVIN_PYTHON", raising=False)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import not_there", "could not be started: ModuleNotFoundError: .*not_there.*pip install pybullet gym hydra"),
        (
            "import sys; print('Plugin failed', flush=True); sys.exit(3)",
            "ended with status 3; its last words: .*Plugin",
        ),
        ("import os; os.kill(os.getpid(), 11)", r"its process died of SIGSEGV\. See docs"),
    ],
)
def test_a_package_that_fails_to_start_is_told_with_what_it_said(tmp_path, code, problem):
    with pytest.raises(SimulatorError, match=f"(?s){problem}"):
        OfficialTable("D", stand_in(tmp_path, code))


def test_trouble_with_egl_names_what_to_install(tmp_path):
    with pytest.raises(SimulatorError, match=r"(?s)died of SIGSEGV.*libegl1.*or use the TinyRenderer"):
        OfficialTable("D", stand_in(tmp_path, "import os; os.kill(os.getpid(), 11)"), renderer=EGL)


def test_scene_data_alone_is_refused(tmp_path):
    with pytest.raises(SimulatorError, match=r"holds no package calvin_env; .* needs a git clone"):
        OfficialTable("D", tmp_path)


@pytest.fixture
def official():
    """The official scene D, or skips."""
    if find_spec("hydra") is None and "CALVIN_PYTHON" not in os.environ:
        pytest.skip("needs an interpreter that runs calvin_env; name it in the variable CALVIN_PYTHON")
    with OfficialTable("D", complete_data(), cameras=False) as environment:
        yield environment


def test_the_official_package_gives_what_was_recorded_from_it_also_after_other_episodes(official):
    recorded = read_recording(recording("D_walk_12"))
    official.reset(seed=1)
    official.step(-DOWN)
    short = replace(
        recorded,
        actions=recorded.actions[:80],
        robot_obs=recorded.robot_obs[:81],
        scene_obs=recorded.scene_obs[:81],
        solved=recorded.solved[:80],
        judged_from=recorded.judged_from[:80],
        rgb_static=recorded.rgb_static[:3],
        rgb_gripper=recorded.rgb_gripper[:3],
        rgb_step=recorded.rgb_step[:3],
    )
    found = replay(short, official)
    assert (found.robot_obs, found.scene_obs, found.solved_step, found.picture_max) == (0.0, 0.0, None, 0.0)


def test_the_official_package_keeps_the_protocol(official):
    assert official.spec.name == "calvin:D"
    assert official.spec.backend == "calvin_env"
    with pytest.raises(SimulatorError, match="call reset first"):
        official.step(DOWN)
    first = official.reset(seed=3)
    assert np.array_equal(official.reset(seed=3).scene_obs, first.scene_obs)
    assert not np.array_equal(official.reset(seed=4).scene_obs, first.scene_obs)
    assert official.step(np.array([0, 0, 0, 0, 0, 0, 0.3])).robot_obs[14] == 1.0
    with pytest.raises(ConfigError, match="not finite"):
        official.step(np.full(7, np.nan))
    official.reset(seed=3)
    clipped = official.step(DOWN).robot_obs
    official.reset(seed=3)
    assert np.array_equal(official.step(9 * DOWN).robot_obs, clipped)
    official._child.kill()
    with pytest.raises(SimulatorError, match="failed to step: its process died of SIGKILL"):
        official.step(DOWN)
