"""Asks every node of the graph for its parameters, once, and puts them into the recording."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from deer_ros.recording.writing import RecordingWriter

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.task import Future

RECORD = "parameters "
"""The metadata record of a node is called this and its full name; values are JSON."""
OWN_RECORDER = "deer_record"


class ParameterReading:
    """Uses the parameter services that every ROS 2 node offers; a node that comes anew is asked anew.

    Args:
        node: that asks.
        writer: takes a metadata record for each node.
    """

    def __init__(self, node: Node, writer: RecordingWriter) -> None:
        self._node = node
        self._writer = writer
        self._asked: set[str] = set()
        self._clients: dict[str, list[Any]] = {}

    def look(self) -> None:
        """Asks the nodes that have not been asked and whose services are there."""
        present = set()
        for name, namespace in self._node.get_node_names_and_namespaces():
            full = f"{namespace.rstrip('/')}/{name}"
            if not name.startswith(("_", OWN_RECORDER)):
                present.add(full)
        for full in self._asked - present:
            self._forget(full)
        for full in sorted(present - self._asked):
            self._ask(full)

    def _ask(self, full: str) -> None:
        from rcl_interfaces.srv import GetParameters, ListParameters

        if full not in self._clients:
            self._clients[full] = [
                self._node.create_client(ListParameters, f"{full}/list_parameters"),
                self._node.create_client(GetParameters, f"{full}/get_parameters"),
            ]
        listing, getting = self._clients[full]
        if listing.service_is_ready() and getting.service_is_ready():
            self._asked.add(full)
            listing.call_async(ListParameters.Request()).add_done_callback(partial(self._on_names, full))

    def _on_names(self, full: str, future: Future[Any]) -> None:
        from rcl_interfaces.srv import GetParameters

        if full not in self._clients:
            return
        answer: Any = future.result()
        names = list(answer.result.names)
        answered = self._clients[full][1].call_async(GetParameters.Request(names=names))
        answered.add_done_callback(partial(self._on_values, full, names))

    def _on_values(self, full: str, names: list[str], future: Future[Any]) -> None:
        from rclpy.parameter import parameter_value_to_python

        answer: Any = future.result()
        values = map(parameter_value_to_python, answer.values)
        texts = {name: json.dumps(_plain(value)) for name, value in zip(names, values, strict=False)}
        self._writer.metadata(f"{RECORD}{full}", texts)
        self._forget(full, asked=True)

    def _forget(self, full: str, asked: bool = False) -> None:
        for client in self._clients.pop(full, []):
            self._node.destroy_client(client)
        if not asked:
            self._asked.discard(full)


def _plain(value: Any) -> Any:
    """A parameter's value in types that JSON knows."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, str | int | float) or value is None:
        return value
    return [_plain(item) for item in value]
