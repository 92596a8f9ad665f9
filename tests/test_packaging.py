"""Tests of the packaging: what pip, colcon and `make setup` are told agrees with what is in the tree."""

from __future__ import annotations

import fnmatch
import importlib
import re
import runpy
import sys
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "deer_policies": ROOT / "policies/deer_policies",
    "deer_sim": ROOT / "sim/deer_sim",
    "deer_ros": ROOT / "deer_ros",
}


@pytest.fixture(scope="module")
def setup_arguments() -> dict[str, Any]:
    """What setup.py passes to setuptools."""
    captured: dict[str, Any] = {}
    patch = pytest.MonkeyPatch()
    patch.setattr(setuptools, "setup", lambda **arguments: captured.update(arguments))
    patch.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        patch.undo()
    return captured


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    """Versions in constraints.txt by normalised name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.partition("#")[0].strip() for line in lines]
    pairs = [entry.split("==") for entry in entries if entry]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt: every line must read name==version"
    names = [normalised(name) for name, _ in pairs]
    assert len(names) == len(set(names)), "constraints.txt pins a name twice"
    return dict(zip(names, (version for _, version in pairs), strict=True))


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required_names(arguments: dict[str, Any]) -> set[str]:
    requirements = [*arguments["install_requires"], *chain.from_iterable(arguments["extras_require"].values())]
    return {normalised(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in requirements}


def test_every_package_is_installed(setup_arguments: dict[str, Any]) -> None:
    there = {
        ".".join((name, *path.parent.relative_to(folder).parts))
        for name, folder in FOLDERS.items()
        for path in folder.rglob("__init__.py")
    }
    assert set(setup_arguments["packages"]) == there
    loose = [
        path
        for folder in FOLDERS.values()
        for path in folder.rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    ]
    assert loose == []


def test_every_data_file_is_installed(setup_arguments: dict[str, Any]) -> None:
    left_out = []
    for name, folder in FOLDERS.items():
        patterns = setup_arguments["package_data"][name]
        for path in folder.rglob("*"):
            if path.is_dir() or path.suffix == ".py" or "__pycache__" in path.parts:
                continue
            inside = path.relative_to(folder).as_posix()
            if not any(fnmatch.fnmatch(inside, pattern) for pattern in patterns):
                left_out.append(f"{name}/{inside}")
    assert left_out == []


@pytest.mark.parametrize(
    "path",
    [
        "policies/deer_policies/checkpoints/deer-nano.safetensors",
        "sim/deer_sim/wordings/training.yaml",
        "deer_ros/templates/report.html.j2",
        "deer_ros/config/simulation.yaml",
        "deer_ros/config/arm.yaml",
        "deer_ros/config/loopback.xml",
        "deer_ros/config/fastdds.xml",
        "launch/simulation.launch.py",
    ],
)
def test_data_that_the_code_reads_is_in_the_tree(path: str) -> None:
    assert (ROOT / path).is_file()


def test_console_scripts_lead_to_functions(setup_arguments: dict[str, Any]) -> None:
    scripts = dict(line.replace(" ", "").split("=") for line in setup_arguments["entry_points"]["console_scripts"])
    assert "deer" in scripts
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), target


def test_every_requirement_is_pinned(setup_arguments: dict[str, Any], pinned: dict[str, str]) -> None:
    assert required_names(setup_arguments) - set(pinned) == set()


@pytest.mark.skipif(Path(sys.prefix).resolve() != ROOT / ".venv", reason="not the environment that `make setup` makes")
def test_pinned_versions_are_those_that_these_tests_run_with(pinned: dict[str, str]) -> None:
    different = {}
    for name, version in pinned.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if installed.partition("+")[0] != version.partition("+")[0]:
            different[name] = f"pinned {version}, installed {installed}"
    assert different == {}


def package_xml(folder: Path) -> ElementTree.Element:
    return ElementTree.parse(folder / "package.xml").getroot()


def test_colcon_sees_what_pip_sees(setup_arguments: dict[str, Any]) -> None:
    root = package_xml(ROOT)
    assert (root.tag, root.get("format")) == ("package", "3")
    for tag in ("name", "version", "description", "license"):
        assert (root.findtext(tag) or "").rstrip(".") == setup_arguments[tag], tag
    assert root.findtext("export/build_type") == "ament_python"
    maintainer = root.find("maintainer")
    assert maintainer is not None
    # catkin_pkg takes only addresses with a long top-level domain; colcon then drops the build type without a word.
    assert re.fullmatch(r"[\w.+-]+@[\w.-]+\.[A-Za-z]{2,}", maintainer.get("email", ""))


def test_ros_requirements_are_the_same_for_pip_and_colcon(setup_arguments: dict[str, Any]) -> None:
    root = package_xml(ROOT)
    depends = {element.text for tag in ("depend", "exec_depend") for element in root.findall(tag)}
    wheels = {
        re.split(r"\[", requirement)[0].removeprefix("ros-").replace("-", "_")
        for requirement in setup_arguments["extras_require"]["ros"]
    }
    assert wheels - depends == set()
    assert "deer_msgs" in depends


def test_messages_are_an_ament_cmake_package_of_the_same_version(setup_arguments: dict[str, Any]) -> None:
    root = package_xml(ROOT / "msgs")
    assert root.findtext("name") == "deer_msgs"
    assert root.findtext("version") == setup_arguments["version"]
    assert root.findtext("export/build_type") == "ament_cmake"
    assert root.findtext("member_of_group") == "rosidl_interface_packages"


def test_every_interface_file_is_built() -> None:
    listed = (ROOT / "msgs/CMakeLists.txt").read_text(encoding="utf-8")
    files = [
        path.relative_to(ROOT / "msgs").as_posix()
        for kind in ("msg", "srv", "action")
        for path in (ROOT / "msgs" / kind).iterdir()
    ]
    assert len(files) >= 5
    assert [name for name in files if name not in listed] == []


def test_license_and_change_log_are_there(setup_arguments: dict[str, Any]) -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"{setup_arguments['version']} " in (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
