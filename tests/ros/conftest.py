"""Fixtures for tests over real ROS 2: all traffic stays on this machine, on a domain of its own."""

import os

import pytest

from tests.ros import interfaces

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture(scope="session")
def interface_packages():
    """control_msgs and tf2_msgs can be imported, here and in child processes; built at first, which takes a minute."""
    if interfaces.installed():
        return
    prefix = interfaces.built()
    os.environ.update(interfaces.variables(prefix))
    interfaces.load(prefix)
