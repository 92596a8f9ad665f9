"""The manifest of the weights that can be fetched: files with their hashes, and the sources that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deer_policies.errors import ConfigError

MANIFEST = Path(__file__).with_name("manifest.yaml")
HUB, PYPI, NPM = "hub", "pypi", "npm"
REGISTRIES = (HUB, PYPI, NPM)


@dataclass(frozen=True)
class ModelFile:
    """A file of a model.

    Attributes:
        name: below the model's folder.
        sha256: of its content, hexadecimal: what is used has this hash, whoever carries it.
        size_bytes: its size.
    """

    name: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        path = Path(self.name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ConfigError(f"a model's file is called {self.name!r}; it must lie below the model's folder")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ConfigError(f"the hash of {self.name} is {self.sha256!r}; it must be SHA-256, 64 digits of 0-9a-f")


@dataclass(frozen=True)
class Source:
    """A package, or a repository of the hub, that carries files of a model.

    Attributes:
        registry: HUB, PYPI or NPM.
        package: its name there.
        version: of the package; for the hub the revision.
        folder: that the files lie in, within it.
        members: members of the package that a file is made of, joined in this order; for those that are not simply
            called after the file. A source with members carries just these files.
    """

    registry: str
    package: str
    version: str
    folder: str = ""
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.registry not in REGISTRIES:
            raise ConfigError(f"a source's registry is {self.registry!r}; it must be one of {', '.join(REGISTRIES)}")

    def __str__(self) -> str:
        return f"{self.registry}:{self.package}@{self.version}"

    def parts(self, name: str) -> tuple[str, ...]:
        """Paths within the package whose contents, joined, are the file; none if it does not carry it."""
        found = self.members.get(name, ()) if self.members else (name,)
        return tuple(f"{self.folder}/{part}" if self.folder else part for part in found)


@dataclass(frozen=True)
class Model:
    """Weights that belong together.

    Attributes:
        name: for the command line.
        about: what they are for, in a line.
        licence: of the weights.
        files: what makes it up.
        sources: in the order in which they are tried.
    """

    name: str
    about: str
    licence: str
    files: tuple[ModelFile, ...]
    sources: tuple[Source, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def load_manifest(path: Path = MANIFEST) -> dict[str, Model]:
    """All models of a manifest, by name. Raises ConfigError if it is not one."""
    try:
        entries: dict[str, Any] = yaml.safe_load(path.read_text())
        return {name: _model(name, entry) for name, entry in entries.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"the manifest of models {path} can't be read: {error!r}") from error


def _model(name: str, entry: Mapping[str, Any]) -> Model:
    files = tuple(ModelFile(file, sha256, int(size)) for file, (sha256, size) in entry["files"].items())
    return Model(name, entry["about"], entry["licence"], files, tuple(_source(each) for each in entry["sources"]))


def _source(entry: Mapping[str, Any]) -> Source:
    registry = next(iter(entry))
    members = {file: tuple(parts) for file, parts in entry.get("members", {}).items()}
    return Source(registry, entry[registry], str(entry["version"]), entry.get("folder", ""), members)
