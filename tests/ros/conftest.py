"""Fixtures for tests over real ROS 2: all traffic stays on this machine, on a domain of its own."""

import os

import pytest

from deer_ros import network
from tests.ros import interfaces

# Not discovery range LOCALHOST: that has shared memory, and what killed processes left there hid participants from each
# other. Of pairs of a node and a client, one after the other, 12 of the 39 before the run was ended did not meet within
# 20 s; on the loopback network 200 of 200 met within 0.2 s.
network.enter(network.LOOPBACK)


@pytest.fixture(scope="session")
def interface_packages():
    """control_msgs and tf2_msgs can be imported, here and in child processes; built at first, which takes a minute."""
    if interfaces.installed():
        return
    prefix = interfaces.built()
    os.environ.update(interfaces.variables(prefix))
    interfaces.load(prefix)


@pytest.fixture
def make_voice_rig():
    """Makes a `VoiceRig` of a node's class and settings; all are closed after the test."""
    from tests.ros.voice_rig import VoiceRig

    rigs = []

    def make(kind, **settings):
        rigs.append(VoiceRig(kind, settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
