"""Builds the interface packages that PyPI has no wheels of (control_msgs, tf2_msgs), as far as tests need them.

The definitions in `interface_packages/` are equal to the real ones in fields, types and order, and so are their type
hashes. On a ROS 2 machine, which has the real packages, nothing is built.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).parent / "interface_packages"
CACHE = ROOT / ".cache" / "interfaces"
PACKAGES = ("control_msgs", "tf2_msgs")
USED_WHEELS = ("ros-action-msgs", "ros-geometry-msgs", "ros-sensor-msgs")
"""What the definitions build on, beyond what deer_msgs does."""
BUILD_TIMEOUT_S = 600


def build_requirements() -> list[str]:
    """What the build needs, in the versions that deer_msgs and constraints.txt pin."""
    own = tomllib.loads((ROOT / "msgs" / "pyproject.toml").read_text())["build-system"]["requires"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    return [*own, *(f"{name}=={pins[name]}" for name in USED_WHEELS)]


def pyproject() -> str:
    """The settings of the build, which are those of deer_msgs."""
    return f"""
[build-system]
requires = {build_requirements()}
build-backend = "scikit_build_core.build"
[project]
name = "interfaces-for-tests"
version = "0.0.0"
[tool.scikit-build]
experimental = true
cmake.source-dir = "."
wheel.install-dir = "/data"
wheel.packages = []
wheel.exclude = ["**/*.egg-info/**", "**/*.ep.rosidl_typesupport_*.c"]
[tool.scikit-build.cmake.define]
BUILD_TESTING = "OFF"
CMAKE_C_FLAGS_RELEASE = "-O0"
CMAKE_CXX_FLAGS_RELEASE = "-O0"
"""


def key() -> str:
    """Names a build by all that goes into it."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {pyproject()}".encode())
    for path in sorted(SOURCES.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def built() -> Path:
    """The prefix that the packages are installed in, built if it is not there yet.

    Raises:
        RuntimeError: if it can't be built, with the end of what pip said.
    """
    prefix = CACHE / key()
    if prefix.is_dir():
        return prefix
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="build_") as folder:
        source, made = Path(folder, "source"), Path(folder, "prefix")
        shutil.copytree(SOURCES, source)
        (source / "pyproject.toml").write_text(pyproject())
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-warn-script-location", "--prefix"]
        done = subprocess.run(
            [*pip, str(made), str(source)], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"control_msgs and tf2_msgs could not be built:\n{(done.stdout + done.stderr)[-3000:]}")
        if not prefix.is_dir():
            made.rename(prefix)
    return prefix


def variables(prefix: Path) -> dict[str, str]:
    """Environment of child processes that are to find the packages."""
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    added = {
        "PYTHONPATH": str(prefix / site),
        "AMENT_PREFIX_PATH": str(prefix),
        "LD_LIBRARY_PATH": str(prefix / "lib"),
    }
    before = {"AMENT_PREFIX_PATH": sys.prefix, **os.environ}
    return {name: os.pathsep.join(filter(None, (value, before.get(name, "")))) for name, value in added.items()}


def load(prefix: Path) -> None:
    """Makes the packages importable in this process, whose library path can't be changed any more."""
    sys.path.append(variables(prefix)["PYTHONPATH"].partition(os.pathsep)[0])
    importlib.invalidate_caches()
    waiting = sorted((prefix / "lib").glob("*.so"))
    while waiting:
        missing = [path for path in waiting if not loads(path)]
        if len(missing) == len(waiting):
            raise RuntimeError(f"libraries can't be loaded: {', '.join(map(str, missing))}")
        waiting = missing


def loads(path: Path) -> bool:
    """Loads a library; False if one that it needs is not there yet."""
    try:
        ctypes.CDLL(str(path))
    except OSError:
        return False
    return True


def installed() -> bool:
    """Whether the real packages are there."""
    return all(find_spec(name) is not None for name in PACKAGES)
