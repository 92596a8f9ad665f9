"""Where a result comes from: the commit of the code and the versions of what it depends on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = ("deer_ros", "numpy", "torch", "pybullet", "ros-rclpy")


def versions(more: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of Python and of the installed distributions that a result depends on, and of `more` of them."""
    found = {"python": platform.python_version()}
    for name in (*DISTRIBUTIONS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(file: Path = Path(__file__)) -> str:
    """Commit of the repository that tracks `file`, with '-dirty' if anything differs from it; empty if none does."""
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10.0, check=True)
    return done.stdout.strip()
