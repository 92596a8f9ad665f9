"""CALVIN's scene data on disk: finds the folder, and reads its settings."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from deer_policies.errors import SimulatorError

SOURCE = "https://github.com/mees/calvin_env"
_HINT = f"it must be a folder with conf/ and data/, such as a git clone of {SOURCE}"


def default_data() -> Path | None:
    """The folder that the variable CALVIN_DATA names, or that around an importable `calvin_env`, where there is one."""
    named = os.environ.get("CALVIN_DATA")
    if named:
        return Path(named)
    spec = find_spec("calvin_env")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))).resolve().parent
    return folder if _is_data(folder) else None


def find_data(given: Path | None) -> Path:
    """The folder with CALVIN's `conf` and `data`: `given`, or else the default one.

    Raises:
        SimulatorError: if it holds no scene data, or there is none.
    """
    folder = default_data() if given is None else given
    if folder is None:
        raise SimulatorError(f"CALVIN's scenes need their data; pass --calvin-data PATH or set CALVIN_DATA: {_HINT}")
    if not _is_data(folder):
        raise SimulatorError(f"{folder} holds no CALVIN scene data; {_HINT}")
    return folder.resolve()


def _is_data(folder: Path) -> bool:
    return (folder / "conf" / "scene").is_dir() and (folder / "data").is_dir()


def scene_names(folder: Path) -> list[str]:
    """Names of the scenes in a folder of scene data, such as 'A'."""
    return sorted(path.stem.removeprefix("calvin_scene_") for path in folder.glob("conf/scene/calvin_scene_*.yaml"))


def read_settings(folder: Path, scene: str) -> dict[str, dict[str, Any]]:
    """The settings of one scene by group: "scene", "robot", "env", "static" and "gripper" (the two cameras).

    They are those that the official evaluation composes: the robot with the long fingers and the two cameras.

    Raises:
        SimulatorError: if there is no such scene, or a file is missing or malformed.
    """
    names = scene_names(folder)
    if scene not in names:
        raise SimulatorError(f"{folder} has no scene {scene!r}; allowed: {', '.join(names) or 'none, as it is empty'}")
    conf = folder / "conf"
    groups = {
        "scene": _read(conf / "scene" / f"calvin_scene_{scene}.yaml"),
        "robot": _read(conf / "robot" / "panda_longer_finger.yaml"),
        "env": _read(conf / "env" / "play_table_env.yaml"),
        "static": _read(conf / "cameras" / "cameras" / "static.yaml"),
        "gripper": _read(conf / "cameras" / "cameras" / "gripper.yaml"),
    }
    for name, group in groups.items():
        for key, value in group.items():
            group[key] = _resolved(value, groups, f"{name}.{key}")
    return groups


def _read(path: Path) -> dict[str, Any]:
    """A settings file, over those that its `defaults` name."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SimulatorError(f"can't read CALVIN's settings {path}: {error}") from error
    if not isinstance(values, dict):
        raise SimulatorError(f"CALVIN's settings {path} hold no mapping; the file is damaged, fetch it again")
    merged: dict[str, Any] = {}
    for base in values.pop("defaults", []):
        merged.update(_read(path.parent / f"{base}.yaml"))
    return {**merged, **values}


def _resolved(value: Any, groups: dict[str, dict[str, Any]], where: str) -> Any:
    """Replaces a reference to another group, as in `${scene.robot_base_position}`; others are left as they are."""
    if not (isinstance(value, str) and value.startswith("${") and value.endswith("}") and "." in value):
        return value
    group, _, key = value[2:-1].partition(".")
    if group not in groups or key not in groups[group]:
        raise SimulatorError(f"CALVIN's setting {where} refers to {value}, which is not there")
    return groups[group][key]
