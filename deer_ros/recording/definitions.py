"""Definitions of message types as text, as a recording carries them so that anybody can decode its messages."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from deer_policies.errors import ConfigError

SEPARATOR = "=" * 80
_PRIMITIVES = {
    *("bool", "byte", "char", "float32", "float64", "string", "wstring"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


@cache
def definition(kind: str) -> str:
    """The text of a type such as 'sensor_msgs/msg/Image' and of all that it is made of, in the form 'ros2msg'.

    Raises:
        ConfigError: if a package's .msg files are not installed.
    """
    package, name = _split(kind)
    known = {f"{package}/{name}": _text(package, name)}
    waiting = [(package, name)]
    while waiting:
        package, name = waiting.pop(0)
        for part in _parts(known[f"{package}/{name}"], package):
            if part not in known:
                known[part] = _text(*part.split("/"))
                waiting.append(_split(part))
    first, *others = known.items()
    return first[1] + "".join(f"{SEPARATOR}\nMSG: {part}\n{text}" for part, text in others)


def _split(kind: str) -> tuple[str, str]:
    parts = kind.split("/")
    if len(parts) not in (2, 3):
        raise ConfigError(f"message type {kind!r} is not of the form package/msg/Name")
    return parts[0], parts[-1]


def _parts(text: str, package: str) -> Iterator[str]:
    """Types of the fields of a definition that are messages themselves, as package/Name."""
    for line in text.splitlines():
        field = re.match(r"\s*([A-Za-z][\w/]*)(<=\d+)?(\[[^\]]*\])?\s+[A-Za-z]\w*", line)
        if field is None or field[1] in _PRIMITIVES:
            continue
        yield field[1] if "/" in field[1] else f"{package}/{field[1]}"


def _text(package: str, name: str) -> str:
    looked = []
    for prefix in _prefixes(package):
        path = prefix / "share" / package / "msg" / f"{name}.msg"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            return text if text.endswith("\n") else f"{text}\n"
        looked.append(str(path))
    raise ConfigError(
        f"there is no definition of {package}/msg/{name}: {' or '.join(looked)} is missing; install the package "
        f"{package}, or name the topics to record with --topics"
    )


def _prefixes(package: str) -> Iterator[Path]:
    """Where ROS 2 packages are installed: the sourced workspaces, the environment, and beside the Python package."""
    yield from (Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix)
    yield Path(sys.prefix)
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        yield from Path(folder).parents[1:4]
