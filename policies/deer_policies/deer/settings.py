"""What dataclasses of settings share: checks of single values, and building from nested mappings of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from deer_policies.errors import ConfigError


def check_positive(owner: object, *names: str) -> None:
    """Raises ConfigError unless these attributes are whole numbers of at least 1."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{type(owner).__name__}.{name} is {value!r}; it must be a whole number of at least 1")


def check_one_of(owner: object, name: str, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError unless the attribute is one of these words."""
    value = getattr(owner, name)
    if value not in allowed:
        raise ConfigError(f"{type(owner).__name__}.{name} is {value!r}; choose one of {', '.join(allowed)}")


def check_fraction(owner: object, *names: str) -> None:
    """Raises ConfigError unless these attributes are in [0, 1)."""
    for name in names:
        value = getattr(owner, name)
        if not 0.0 <= value < 1.0:
            raise ConfigError(f"{type(owner).__name__}.{name} is {value!r}; it must be in [0, 1)")


def from_plain(kind: Any, values: Any, where: str) -> Any:
    """A dataclass, and those that are its fields, from nested mappings; lists become tuples.

    Args:
        kind: the dataclass.
        values: its settings by name.
        where: what the message of an error calls it.

    Raises:
        ConfigError: for a setting that is unknown or missing, naming it.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping of settings; got {values!r}")
    allowed = [item.name for item in fields(kind)]
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ConfigError(f"{where} has unknown settings {unknown}; allowed are {allowed}")
    kinds = get_type_hints(kind)
    built = {
        name: from_plain(kinds[name], value, f"{where}.{name}")
        if is_dataclass(kinds[name])
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in values.items()
    }
    try:
        return kind(**built)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings with some of the values changed; neither argument is altered."""
    result = dict(values)
    for name, value in changes.items():
        before = result.get(name)
        result[name] = merged(before, value) if isinstance(value, dict) and isinstance(before, dict) else value
    return result
