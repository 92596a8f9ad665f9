"""Sections of a document that scripts write, and the tables that were made for one in several runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deer_ros.cli.provenance import commit


@dataclass(frozen=True)
class Made:
    """A table and what it was made of.

    Attributes:
        text: Markdown.
        command: what made it.
        source: one sentence on what it is of; only tables of one source stand in one section.
        commits: of the code that made its cells.
    """

    text: str
    command: str
    source: str
    commits: tuple[str, ...]

    def keep(self, path: Path) -> None:
        """Writes it to a JSON file, complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(path)


def kept(folder: Path, names: Mapping[str, str], source: str) -> dict[str, Made]:
    """The tables of one source in a folder, in the order of `names`."""
    found = {}
    for name in names:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text())
        made = Made(**{**content, "commits": tuple(content["commits"])})
        if made.source == source:
            found[name] = made
    return found


def section(title: str, tables: Mapping[str, Made], titles: Mapping[str, str]) -> str:
    """The Markdown of a section: commands, what the tables are of, and the tables."""
    commands = "\n".join(dict.fromkeys(made.command for made in tables.values()))
    source = next(iter(tables.values())).source
    commits = ", ".join(sorted({name for made in tables.values() for name in made.commits}))
    parts = [
        f"## {title}",
        f"```console\n{commands}\n```",
        f"{source} Code at commit {commits or commit() or 'unknown'}.",
    ]
    return "\n\n".join([*parts, *(f"### {titles[name]}\n\n{made.text}" for name, made in tables.items())])


def write_section(path: Path, name: str, text: str) -> None:
    """Writes a section between its markers in a document, in place of what was there, or at the end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    document = path.read_text(encoding="utf-8") if path.exists() else ""
    marked = f"{begin}\n{text.strip()}\n{end}"
    if begin in document:
        before, rest = document.split(begin, 1)
        document = before + marked + rest.split(end, 1)[1]
    else:
        document = f"{document.rstrip()}\n\n{marked}\n".lstrip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document, encoding="utf-8")
