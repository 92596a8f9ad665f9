"""Tests of the house rules: who imports whom, what importing costs, and how files are named and sized."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "deer_policies": ROOT / "policies" / "deer_policies",
    "deer_sim": ROOT / "sim" / "deer_sim",
    "deer_ros": ROOT / "deer_ros",
}
CONTRACTS = ("deer_policies.interfaces", "deer_policies.errors")
ALLOWED: dict[str, tuple[str, ...]] = {
    "deer_policies": ("deer_policies",),
    "deer_sim": ("deer_sim", *CONTRACTS),
    "deer_ros.control": ("deer_ros.control", *CONTRACTS),
    "deer_ros.nodes": ("deer_policies", "deer_sim", "deer_ros"),
    "deer_ros.cli": ("deer_policies", "deer_sim", "deer_ros"),
    "deer_ros": ("deer_ros", *CONTRACTS),
}
"""What the modules under each prefix may import of this project; the longest prefix that fits counts."""
ROS_FREE = ("deer_policies", "deer_sim", "deer_ros.control")
ROS_MODULES = ("rclpy", "rcl_interfaces", "deer_msgs", "std_msgs", "sensor_msgs", "geometry_msgs", "builtin_interfaces")
HEAVY = (
    *("torch", "safetensors", "tokenizers", "tensorboardX", "pybullet", "scipy"),
    *("rclpy", "av", "PIL", "pyarrow", "jinja2", "rich", "mcap", "mcap_ros2"),
)
"""Not Gymnasium: whoever imports deer_sim finds its environments registered there."""
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
MAX_LINES = 400


def module_name(path: Path) -> str:
    """Dotted name of a file of one of the packages."""
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise AssertionError(path)


def imported_names(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that `source` imports anywhere, also inside functions; `from a import b` gives 'a.b'."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = len(parts) - node.level + is_package
                base = ".".join([*parts[:kept], *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def forbidden_edges(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a module that go against the directions."""
    prefix = max((prefix for prefix in ALLOWED if within(module, prefix)), key=len)
    found = []
    for name in imported_names(source, module, is_package):
        if any(within(name, package) for package in PACKAGES) and not any(within(name, at) for at in ALLOWED[prefix]):
            found.append(f"{module} imports {name}")
        if any(within(module, free) for free in ROS_FREE) and any(within(name, ros) for ros in ROS_MODULES):
            found.append(f"{module} imports {name} of ROS")
    return found


SOURCES = {
    module_name(path): path
    for folder in PACKAGES.values()
    for path in sorted(folder.rglob("*.py"))
    if "__pycache__" not in path.parts
}


def test_every_import_goes_in_an_allowed_direction() -> None:
    assert len(SOURCES) > 20
    edges = [
        edge
        for module, path in SOURCES.items()
        for edge in forbidden_edges(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    ]
    assert edges == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("deer_policies.deer.policy", "import deer_sim.tasks"),
        ("deer_policies.deer.policy", "def f():\n    from deer_ros import client"),
        ("deer_sim.rollout", "from deer_policies.deer.policy import DeerPolicy"),
        ("deer_sim.rollout", "from deer_policies import deer"),
        ("deer_ros.control.safety", "import rclpy"),
        ("deer_ros.control.safety", "from sensor_msgs.msg import Image"),
        ("deer_ros.control.safety", "from ..client import StackClient"),
        ("deer_ros.control.safety", "from deer_sim.environment import Environment"),
        ("deer_ros.conversions", "from deer_sim import tasks"),
        ("deer_ros.client", "from deer_policies.deer.checkpoint import load_policy"),
    ],
)
def test_wrong_direction_is_noticed(module: str, source: str) -> None:
    assert len(forbidden_edges(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("deer_sim.rollout", "from deer_policies.interfaces import Policy"),
        ("deer_ros.control.safety", "from .watchdog import Watchdog"),
        (
            "deer_ros.cli.demo.command",
            "from deer_sim import instructions\nfrom deer_policies.deer.policy import DeerPolicy",
        ),
        ("deer_ros.nodes.policy_node", "import rclpy"),
    ],
)
def test_right_direction_is_let_through(module: str, source: str) -> None:
    assert forbidden_edges(source, module) == []


@pytest.mark.parametrize(
    "module",
    [
        *(
            "deer_policies",
            "deer_policies.interfaces",
            "deer_sim",
            "deer_sim.environment",
            "deer_ros",
            "deer_ros.cli.main",
        ),
        *("deer_ros.recording.replaying", "deer_ros.recording.demonstrations"),
    ],
)
def test_importing_a_package_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    paths = ":".join(str(folder.parent) for folder in PACKAGES.values())
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": paths}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_only_the_recording_imports_pyav() -> None:
    found = [
        module
        for module, path in SOURCES.items()
        if any(within(name, "av") for name in imported_names(path.read_text(encoding="utf-8"), module, False))
    ]
    assert found == ["deer_sim.recording"]


@pytest.mark.parametrize("module", SOURCES)
def test_file_says_what_it_is_for_and_stays_small(module: str) -> None:
    source = SOURCES[module].read_text(encoding="utf-8")
    assert source.startswith('"""'), f"{module}: the first line must be a docstring that says what the file is for"
    assert ast.get_docstring(ast.parse(source)), module
    assert source.count("\n") <= MAX_LINES, f"{module} has more than {MAX_LINES} lines; split it"


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    found = [module for module in SOURCES if BANNED_NAMES & set(module.split("."))]
    assert found == []


def unsafe_loads(source: str) -> list[str]:
    """What could run code that lies in a data file: pickles, numpy's and torch's included, and remote code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in ("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load"):
            found.append(called)
        if called.endswith("load") and given.get("allow_pickle", "False") != "False":
            found.append(f"{called} with allow_pickle")
        if called == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if "trust_remote_code" in given:
            found.append("trust_remote_code")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "pickle.load(file)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "Model.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_unsafe_load_is_noticed(source: str) -> None:
    assert len(unsafe_loads(source)) == 1


def test_nothing_runs_code_from_a_data_file() -> None:
    found = {module: unsafe_loads(path.read_text(encoding="utf-8")) for module, path in SOURCES.items()}
    assert {module: loads for module, loads in found.items() if loads} == {}


def test_only_the_reader_of_calvins_own_layout_knows_pickle() -> None:
    """That layout holds dictionaries as pickles; its reader lets plain values through and refuses everything else."""
    found = [
        module
        for module, path in SOURCES.items()
        if any(within(name, "pickle") for name in imported_names(path.read_text(encoding="utf-8"), module, False))
    ]
    assert set(found) <= {"deer_sim.dataset.pickles"}
