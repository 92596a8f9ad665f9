"""The two XML documents of DDS Security: permissions of an enclave, and governance of a domain.

Formats: OMG DDS Security 1.1, sections 9.4.1.2 (governance) and 9.4.1.3 (permissions). ROS 2's names on DDS (`rt/`,
`rq/...Request`, `rr/...Reply`): https://design.ros2.org/articles/topic_and_service_names.html
"""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree

from deer_ros.endpoints import Endpoints
from deer_ros.security.enclaves import Enclave

DISCOVERY = "ros_discovery_info"
"""Topic on which the processes of ROS 2 tell each other which nodes they hold; every one writes and reads it."""
_SCHEMAS = "http://www.omg.org/spec/DDS-SECURITY/20170901/"
_ACTION_SERVICES = ("cancel_goal", "get_result", "send_goal")
_ACTION_TOPICS = ("feedback", "status")


def dds_topics(ends: Endpoints) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What resolved endpoints are on DDS: the topics that are written, and those that are read; sorted, each once."""
    serves = (*ends.serves, *(f"{name}/_action/{part}" for name in ends.executes for part in _ACTION_SERVICES))
    calls = (*ends.calls, *(f"{name}/_action/{part}" for name in ends.requests for part in _ACTION_SERVICES))
    publishes = (*ends.publishes, *(f"{name}/_action/{part}" for name in ends.executes for part in _ACTION_TOPICS))
    subscribes = (*ends.subscribes, *(f"{name}/_action/{part}" for name in ends.requests for part in _ACTION_TOPICS))
    written = {f"rt{name}" for name in publishes} | {f"rr{name}Reply" for name in serves}
    read = {f"rt{name}" for name in subscribes} | {f"rq{name}Request" for name in serves}
    written |= {f"rq{name}Request" for name in calls} | {DISCOVERY}
    read |= {f"rr{name}Reply" for name in calls} | {DISCOVERY}
    return tuple(sorted(written)), tuple(sorted(read))


def permissions_xml(enclave: Enclave, domain_id: int, not_before: datetime, not_after: datetime) -> bytes:
    """What an enclave may do in a domain; everything else is denied. Times are UTC."""
    root = _root("permissions")
    grant = ElementTree.SubElement(ElementTree.SubElement(root, "permissions"), "grant", name=enclave.path)
    ElementTree.SubElement(grant, "subject_name").text = f"CN={enclave.path}"
    validity = ElementTree.SubElement(grant, "validity")
    ElementTree.SubElement(validity, "not_before").text = f"{not_before:%Y-%m-%dT%H:%M:%S}"
    ElementTree.SubElement(validity, "not_after").text = f"{not_after:%Y-%m-%dT%H:%M:%S}"
    rule = ElementTree.SubElement(grant, "allow_rule")
    _domain(rule, domain_id)
    for right, names in zip(("publish", "subscribe"), dds_topics(enclave.resolved), strict=True):
        topics = ElementTree.SubElement(ElementTree.SubElement(rule, right), "topics")
        for name in names:
            ElementTree.SubElement(topics, "topic").text = name
    ElementTree.SubElement(grant, "default").text = "DENY"
    return _document(root)


def governance_xml(domain_id: int) -> bytes:
    """Rules of a domain: only who shows a certificate takes part, each topic is checked, and all data is encrypted."""
    root = _root("governance")
    rule = ElementTree.SubElement(ElementTree.SubElement(root, "domain_access_rules"), "domain_rule")
    _domain(rule, domain_id)
    for name, value in (
        ("allow_unauthenticated_participants", "false"),
        ("enable_join_access_control", "true"),
        ("discovery_protection_kind", "ENCRYPT"),
        ("liveliness_protection_kind", "ENCRYPT"),
        ("rtps_protection_kind", "SIGN"),
    ):
        ElementTree.SubElement(rule, name).text = value
    topic = ElementTree.SubElement(ElementTree.SubElement(rule, "topic_access_rules"), "topic_rule")
    for name, value in (
        ("topic_expression", "*"),
        ("enable_discovery_protection", "true"),
        ("enable_liveliness_protection", "true"),
        ("enable_read_access_control", "true"),
        ("enable_write_access_control", "true"),
        ("metadata_protection_kind", "ENCRYPT"),
        ("data_protection_kind", "ENCRYPT"),
    ):
        ElementTree.SubElement(topic, name).text = value
    return _document(root)


def _root(schema: str) -> ElementTree.Element:
    instance = "http://www.w3.org/2001/XMLSchema-instance"
    return ElementTree.Element(
        "dds",
        {"xmlns:xsi": instance, "xsi:noNamespaceSchemaLocation": f"{_SCHEMAS}omg_shared_ca_{schema}.xsd"},
    )


def _domain(rule: ElementTree.Element, domain_id: int) -> None:
    ElementTree.SubElement(ElementTree.SubElement(rule, "domains"), "id").text = str(domain_id)


def _document(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
