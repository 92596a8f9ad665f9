"""The gate that keeps a process from being discovered: its profile, and when it lets announcements through."""

import socket
import time
import xml.etree.ElementTree as ElementTree

import pytest

from deer_ros import network
from deer_ros.bringup import free_domain_id
from deer_ros.faults.announcement_gate import FIRST_NUMBER, AnnouncementGate

DDS = "{http://www.eprosima.com}"


@pytest.fixture
def listener():
    """A participant's socket, and its domain."""
    domain_id = free_domain_id()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 7410 + 250 * domain_id))
        bound.settimeout(0.3)
        yield bound, domain_id


def test_its_profile_announces_to_the_gate_alone_and_is_not_looked_for(listener):
    gate = AnnouncementGate(listener[1], 1.0, FIRST_NUMBER + 3)
    try:
        tree = ElementTree.fromstring(gate.profile(network.PROFILE.read_text()))
    finally:
        gate.close()
    builtin = tree.find(f".//{DDS}rtps/{DDS}builtin")
    peers = builtin.findall(f"{DDS}initialPeersList/{DDS}locator/{DDS}udpv4")
    assert [(peer.findtext(f"{DDS}address"), int(peer.findtext(f"{DDS}port"))) for peer in peers] == [gate.address]
    assert builtin.findtext(f"{DDS}discovery_config/{DDS}initialAnnouncements/{DDS}count") == "0"
    assert int(tree.findtext(f".//{DDS}rtps/{DDS}participantID")) == FIRST_NUMBER + 3
    looked_for = int(tree.findtext(f".//{DDS}maxInitialPeersRange"))
    assert looked_for <= FIRST_NUMBER


def test_announcements_are_dropped_until_it_opens(listener):
    bound, domain_id = listener
    began_s = time.monotonic()
    gate = AnnouncementGate(domain_id, 1.0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as announcer:
            announcer.sendto(b"early", gate.address)
            with pytest.raises(TimeoutError):
                bound.recv(100)
            assert time.monotonic() - began_s < 1.0, "this machine is too slow for the test"
            time.sleep(1.0)
            announcer.sendto(b"late", gate.address)
            assert bound.recv(100) == b"late"
    finally:
        gate.close()
