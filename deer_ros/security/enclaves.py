"""Which enclaves a bring-up has, what each may do, and the same as an sros2 policy file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from operator import add
from xml.etree import ElementTree

from deer_policies.errors import ConfigError
from deer_ros import endpoints, graph
from deer_ros.endpoints import Endpoints

FOLDER = "deer"
"""Enclaves lie below this name, so that they share a keystore with other packages'."""
POLICY_VERSION = "0.2.0"
"""Of the policy format that sros2 reads."""
COMMAND_LINE = "_ros2cli_*"
"""Names of the nodes that the command `ros2` makes."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMESPACE = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Enclave:
    """One identity and its rights.

    Attributes:
        path: of the enclave, which is also the common name of its certificate.
        namespace: '' or '/robot'.
        nodes: names that its nodes may have, which may end in '*'.
        ends: what it may publish, subscribe, serve and call.
    """

    path: str
    namespace: str
    nodes: tuple[str, ...]
    ends: Endpoints

    @property
    def resolved(self) -> Endpoints:
        """The rights with absolute names."""
        return reduce(add, (self.ends.resolved(self.namespace, node) for node in self.nodes))


def checked_namespace(text: str) -> str:
    """The namespace as '' or '/robot'. Raises ConfigError if ROS would not take it."""
    namespace = f"/{text.strip('/')}" if text.strip("/") else ""
    if not _NAMESPACE.fullmatch(namespace):
        raise ConfigError(f"namespace is {text!r}; it must be names of letters, digits and _, with / between them")
    return namespace


def enclave_path(name: str, namespace: str = "") -> str:
    """Path of the enclave of a node or outsider."""
    return f"{namespace}/{FOLDER}/{name}"


def enclaves(bringup: str, namespace: str = "", drivers: tuple[str, ...] = ()) -> tuple[Enclave, ...]:
    """The enclaves of all nodes of a bring-up and of those who talk to it from outside.

    Args:
        bringup: one of `deer_ros.graph.BRINGUPS`.
        namespace: of the nodes.
        drivers: names of the nodes that share the enclave of the arm's driver and the cameras.

    Raises:
        ConfigError: if the bring-up is unknown, or a name can't be one.
    """
    if bringup not in graph.BRINGUPS:
        raise ConfigError(f"bring-up {bringup!r} is unknown; there are {', '.join(graph.BRINGUPS)}")
    namespace = checked_namespace(namespace)
    described = graph.BRINGUPS[bringup]
    if wrong := [name for name in drivers if not _NAME.fullmatch(name)]:
        raise ConfigError(f"{wrong[0]!r} can't be the name of a node; it must be of letters, digits and _")
    names = {
        endpoints.OPERATOR: (f"{endpoints.CLIENT_NAME}_*", COMMAND_LINE),
        endpoints.OBSERVER: (endpoints.OBSERVER, COMMAND_LINE),
        endpoints.DRIVER: drivers or (endpoints.DRIVER,),
    }
    granted = {node.name: endpoints.allowed(node) for node in (*described.nodes, graph.SUPERVISOR)}
    granted[graph.SUPERVISOR.name] += endpoints.bringing_up(described)
    granted |= endpoints.outsiders(described)
    return tuple(
        Enclave(enclave_path(name, namespace), namespace, names.get(name, (name,)), ends)
        for name, ends in granted.items()
    )


def policy_xml(granted: tuple[Enclave, ...]) -> bytes:
    """The rights of all enclaves in sros2's policy format, for `ros2 security create_permission`."""
    root = ElementTree.Element("policy", version=POLICY_VERSION)
    listed = ElementTree.SubElement(root, "enclaves")
    for enclave in granted:
        element = ElementTree.SubElement(listed, "enclave", path=enclave.path)
        profiles = ElementTree.SubElement(element, "profiles")
        for node in enclave.nodes:
            profile = ElementTree.SubElement(profiles, "profile", ns=enclave.namespace or "/", node=node)
            ends = enclave.ends
            _list(profile, "topic", {"publish": ends.publishes, "subscribe": ends.subscribes})
            _list(profile, "service", {"reply": ends.serves, "request": ends.calls})
            _list(profile, "action", {"execute": ends.executes, "call": ends.requests})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _list(profile: ElementTree.Element, kind: str, allowed: dict[str, tuple[str, ...]]) -> None:
    for right, names in allowed.items():
        if names:
            element = ElementTree.SubElement(profile, f"{kind}s", {right: "ALLOW"})
            for name in sorted(names):
                ElementTree.SubElement(element, kind).text = name
