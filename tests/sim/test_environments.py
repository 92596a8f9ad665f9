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


def test_an_unknown_scene_is_refused():
    with pytest.raises(SimulatorError, match="unknown scene 'E'; allowed: A, B, C, D"):
        make_environment("playtable:E")
