"""CALVIN's official scenes: exact replays of recordings, resets, and data that is missing or damaged."""

import shutil

import numpy as np
import pytest
import yaml

from deer_policies.errors import SimulatorError
from deer_sim.calvin.arm import TIP, has_official_tips
from deer_sim.calvin.data import find_data, scene_names
from deer_sim.calvin.environment import CalvinTable
from deer_sim.calvin.recording import read_recording
from deer_sim.calvin.replay import replay
from deer_sim.engine.cameras import EGL, TINY
from deer_sim.environments import make_environment
from tests.sim.calvin_data import complete_data, recording, some_data

NAMES = [f"{scene}_walk_{number}" for scene in "ABCD" for number in (11, 12)] + [
    f"D_expert_{n}" for n in (0, 1, 2, 3, 5)
]
STAY = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def tables():
    """The complete scenes, made when first asked for."""
    data, made = complete_data(), {}

    def table(scene):
        if scene not in made:
            made[scene] = CalvinTable(scene, data, cameras=False, exact=True)
        return made[scene]

    yield table
    for environment in made.values():
        environment.close()


@pytest.mark.parametrize("name", NAMES)
def test_recordings_are_reproduced_to_the_bit(name, tables):
    recorded = read_recording(recording(name))
    found = replay(recorded, tables(recorded.scene))
    assert (found.robot_obs, found.scene_obs, found.solved_step) == (0.0, 0.0, None)
    assert (found.picture_mean, found.picture_max) == (0.0, 0.0)


def test_what_ran_before_leaves_no_trace(tables):
    table, recorded = tables("D"), read_recording(recording("D_walk_11"))
    table.reset(seed=5)
    for _ in range(20):
        table.step(np.array([0.3, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0]))
    assert replay(recorded, table).robot_obs == 0.0


@pytest.fixture(scope="module")
def table():
    with CalvinTable("C", some_data(), cameras=False) as environment:
        yield environment


def test_the_protocol_is_met_by_name():
    environment = make_environment("calvin:A", cameras=True, calvin_data=some_data())
    try:
        assert environment.spec.name == "calvin:A"
        assert environment.spec.renderer == "pybullet TinyRenderer"
        assert environment.spec.block_order == ("pink", "blue", "red")
        step = environment.reset(seed=1)
        assert step.rgb_static.shape == (200, 200, 3)
        assert step.rgb_gripper.shape == (84, 84, 3)
        assert step.rgb_static.std() > 20
    finally:
        environment.close()


def test_a_seed_decides_where_the_blocks_lie(table):
    first = table.reset(seed=1).scene_obs
    assert not np.array_equal(table.reset(seed=2).scene_obs, first)
    assert np.array_equal(table.reset(seed=1).scene_obs, first)
    for place in first[6:].reshape(3, 6)[:, :3]:
        assert any(
            area.x[0] - 0.03 <= place[0] <= area.x[1] + 0.03 and area.y[0] - 0.03 <= place[1] <= area.y[1] + 0.03
            for area in table._model.surfaces.values()
        )


def test_actions_are_clipped_unless_a_replay_asks_for_them_as_they_are(table):
    wide = np.array([3.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0])
    table.reset(seed=0)
    clipped = table.step(wide).robot_obs
    table.reset(seed=0)
    assert np.array_equal(table.step(np.clip(wide, -1, 1)).robot_obs, clipped)
    with CalvinTable("C", some_data(), cameras=False, exact=True) as unlimited:
        unlimited.reset(seed=0)
        assert not np.allclose(unlimited.step(wide).robot_obs, clipped, atol=1e-3)


def test_a_reset_takes_a_state_over_as_a_fresh_official_environment_does(table):
    start = table.reset(seed=0)
    robot_obs, scene_obs = start.robot_obs.copy(), start.scene_obs.copy()
    robot_obs[14] = -1.0
    scene_obs[2], scene_obs[5] = 0.02, 1.0
    step = table.reset(robot_obs=robot_obs, scene_obs=scene_obs)
    assert step.robot_obs[14] == 1.0
    assert step.state.led
    table._client.resetJointState(table._fixtures.body, table._fixtures._joints[2], 0.02)
    table._fixtures.update()
    assert not table._fixtures.led


def test_a_missing_or_wrong_folder_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(SimulatorError, match=r"holds no CALVIN scene data; it must be a folder with conf/ and data/"):
        find_data(tmp_path)
    with pytest.raises(SimulatorError, match="has no scene 'E'; allowed: A, B, C, D"):
        CalvinTable("E", some_data(), cameras=False)
    assert {"A", "B", "C", "D"} <= set(scene_names(some_data()))


@pytest.fixture
def copied(tmp_path):
    """A copy of the scene data, to damage."""
    for part in ("conf", "data"):
        shutil.copytree(some_data() / part, tmp_path / part, ignore=shutil.ignore_patterns("*.SLD*", "digit.STL"))
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)
    return tmp_path


def change(path, edit):
    """Edits a settings file."""
    values = yaml.safe_load(path.read_text())
    edit(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def test_damaged_data_names_the_file_or_the_setting(copied):
    settings = copied / "conf/scene/calvin_scene_D.yaml"
    intact = settings.read_text()
    change(settings, lambda values: values["objects"]["movable_objects"]["block_red"].pop("file"))
    with pytest.raises(SimulatorError, match=r"settings of scene D in .* are malformed: KeyError\('file'\)"):
        CalvinTable("D", copied, cameras=False)
    settings.write_text("objects: [")
    with pytest.raises(SimulatorError, match=r"can't read CALVIN's settings .*calvin_scene_D.yaml"):
        CalvinTable("D", copied, cameras=False)
    settings.write_text(intact)
    change(copied / "conf/robot/panda.yaml", lambda values: values.update(use_target_pose=False))
    with pytest.raises(SimulatorError, match=r"robot.use_target_pose is False; only True is supported"):
        CalvinTable("D", copied, cameras=False)
    (copied / "data/blocks/block_blue_big.urdf").unlink()
    change(copied / "conf/robot/panda.yaml", lambda values: values.update(use_target_pose=True))
    with pytest.raises(SimulatorError, match=r"can't load .*block_blue_big.urdf"):
        CalvinTable("A", copied, cameras=False)


def test_settings_are_followed(copied):
    change(copied / "conf/cameras/cameras/static.yaml", lambda values: values.update(width=60, height=60))
    change(copied / "conf/robot/panda.yaml", lambda values: values.update(magic_scaling_factor_pos=0.5))
    moved = []
    for data in (some_data(), copied):
        with CalvinTable("D", data, cameras=False) as environment:
            start = environment.reset(seed=0).robot_obs
            for _ in range(4):
                step = environment.step(np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]))
            for _ in range(15):
                step = environment.step(STAY)
            moved.append(step.robot_obs[2] - start[2])
            shape = environment.pictures()[0].shape
    assert moved == pytest.approx([0.08, 0.04], abs=2e-3)
    assert shape == (60, 60, 3)


def test_fingertips_that_the_data_lacks_are_made_up_for(copied, caplog, monkeypatch):
    intact = some_data()
    monkeypatch.delenv("CALVIN_DATA", raising=False)
    (copied / "data/franka_panda/meshes/visual" / TIP).unlink(missing_ok=True)
    if has_official_tips(copied):
        pytest.skip("an installed calvin_env supplies the fingertips")
    states = []
    for data in (intact, copied):
        with CalvinTable("D", data, cameras=False) as environment:
            environment.reset(seed=0)
            states.append(environment.step(STAY).robot_obs)
    assert "lacks digit_gel_only.STL" in caplog.text
    assert np.allclose(*states, atol=1e-3)
    assert np.abs(states[0][:6] - states[1][:6]).max() < 1e-5
    (copied / "data/franka_panda/meshes/visual/hand.obj").unlink()
    with pytest.raises(SimulatorError, match="names meshes that are missing: meshes/visual/"):
        CalvinTable("D", copied, cameras=False)


def test_a_light_arm_moves_the_same_and_looks_much_the_same():
    seen = []
    for light in (False, True):
        with CalvinTable("A", some_data(), light_arm=light) as environment:
            assert environment.spec.renderer == TINY + light * ", light arm"
            environment.reset(seed=0)
            seen.append([environment.step(np.array([0.5, 1.0, -0.7, 0.0, 0.0, 0.0, -1.0])) for _ in range(5)][-1])
    assert np.array_equal(seen[0].robot_obs, seen[1].robot_obs)
    difference = np.abs(seen[0].rgb_static.astype(int) - seen[1].rgb_static)
    assert 0.1 < difference.mean() < 5.0


def test_opengl_draws_other_pictures_and_the_same_ones_after_each_reset():
    pictures = []
    for renderer in (TINY, EGL):
        try:
            with CalvinTable("D", some_data(), renderer=renderer) as environment:
                assert environment.spec.renderer == renderer
                pictures.append([environment.reset(seed=0) for _ in range(2)])
        except SimulatorError as error:
            pytest.skip(str(error))
    for first, second in pictures:
        assert np.array_equal(first.rgb_static, second.rgb_static)
        assert np.array_equal(first.rgb_gripper, second.rgb_gripper)
    assert 5.0 < np.abs(pictures[0][0].rgb_static.astype(int) - pictures[1][0].rgb_static).mean() < 60.0
