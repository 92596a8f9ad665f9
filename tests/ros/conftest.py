"""Fixtures for tests over real ROS 2: all traffic stays on this machine, on a domain of its own."""

import os

import pytest

from deer_ros import network
from tests.ros import interfaces

# Not discovery range LOCALHOST: that has shared memory, and what a killed process left there made every second pair of
# participants blind to each other for good (200 of MicrophoneNode and client; none of 200 on the loopback network).
network.enter(network.LOOPBACK)


@pytest.fixture(scope="session")
def interface_packages():
    """control_msgs and tf2_msgs can be imported, here and in child processes; built at first, which takes a minute."""
    if interfaces.installed():
        return
    prefix = interfaces.built()
    os.environ.update(interfaces.variables(prefix))
    interfaces.load(prefix)
