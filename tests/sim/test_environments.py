"""Environments by name."""

import pytest

from deer_policies.errors import ConfigError, SimulatorError
from deer_sim.environments import make_environment


def test_a_name_gives_its_environment():
    environment = make_environment("playtable:B", cameras=False)
    try:
        assert environment.spec.name == "playtable:B"
        assert environment.reset(seed=0).rgb_static is None
    finally:
        environment.close()


@pytest.mark.parametrize("name", ["D", "playtable", "playtable:", "calvn:D", ""])
def test_a_malformed_name_is_refused(name):
    with pytest.raises(ConfigError, match="write playtable:D or calvin:D"):
        make_environment(name)


@pytest.mark.parametrize(
    ("name", "option", "problem"),
    [
        ("calvin:D", {"backend": "mujoco"}, "unknown back end 'mujoco'; allowed: deer_sim, calvin_env"),
        ("calvin:D", {"renderer": "vulkan"}, "unknown renderer 'vulkan'; allowed: tiny, light, egl"),
        ("playtable:D", {"backend": "calvin_env"}, "no back end calvin_env, only deer_sim; calvin:D has it"),
        ("calvin:D", {"backend": "calvin_env", "renderer": "light"}, "calvin_env draws no light arm"),
        ("playtable:D", {"renderer": "egl"}, "no renderer egl, only tiny; calvin:D has it"),
    ],
)
def test_options_that_the_scene_lacks_are_refused(name, option, problem):
    with pytest.raises(ConfigError, match=problem):
        make_environment(name, **option)


def test_an_unknown_scene_is_refused():
    with pytest.raises(SimulatorError, match="unknown scene 'E'; allowed: A, B, C, D"):
        make_environment("playtable:E")
