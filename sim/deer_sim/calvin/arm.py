"""The arm's URDF, with meshes that are there: some copies of CALVIN's data lack those of the fingertips."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from deer_policies.errors import SimulatorError
from deer_sim.calvin.data import SOURCE, default_data
from deer_sim.playtable import meshes

TIP = "digit_gel_only.STL"
_ARM_FOLDER = Path("data/franka_panda")
_TIP_FILE = _ARM_FOLDER / "meshes" / "visual" / TIP
_HALF_WIDTH_M, _FOOT_M, _CENTRE_M = 0.0092, 0.0047, 0.0205
_DOME = ((0.0161, 1.0), (0.0174, 1.0), (0.0181, 0.97), (0.0186, 0.85), (0.0191, 0.70), (0.0196, 0.49), (0.0201, 0.11))
"""The fingertip: how far out (m) its outline, a rectangle with a round head, has shrunk to which part."""
_ARC_CORNERS = 24

log = logging.getLogger(__name__)


def has_official_tips(folder: Path) -> bool:
    """Whether the fingertips' own mesh is at hand, without which no recording can be reproduced to the bit."""
    return _find_tip(folder) is not None


def _find_tip(folder: Path) -> Path | None:
    """The fingertips' mesh in the scene data, or in the default folder."""
    for place in (folder, default_data()):
        if place is not None and (place / _TIP_FILE).is_file():
            return place / _TIP_FILE
    return None


def arm_file(folder: Path, filename: str, written: Path, light: bool) -> Path:
    """The arm's URDF, ready to load.

    Args:
        folder: the scene data.
        filename: of the URDF, below `data`.
        written: an empty folder. Where the data lacks the fingertips' mesh, a URDF that names another one goes there:
            that of the default folder (see `deer_sim.calvin.data`), or else one of like size and form that is computed.
        light: names the meshes that links touch with also where they are drawn.

    Raises:
        SimulatorError: if the URDF or another mesh is missing.
    """
    path = folder / "data" / filename
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SimulatorError(f"can't read the arm's URDF {path}: {error}") from error
    named = sorted(set(re.findall(r'filename="package://([^"]+)"', text)))
    missing = [name for name in named if not (path.parent / name).is_file()]
    if {Path(name).name for name in missing} - {TIP}:
        raise SimulatorError(f"{path} names meshes that are missing: {', '.join(missing)}; fetch the data again")
    if not missing and not light:
        return path
    computed = meshes.write_obj(written / "fingertip.obj", _dome())
    tip = _find_tip(folder)
    if tip is None:
        tip = computed
        log.warning(
            "%s lacks %s; the fingertips are drawn up from their measures, so that contacts differ a little from the "
            "official ones. For exact replays pass a git clone of %s as --calvin-data",
            folder,
            TIP,
            SOURCE,
        )
    if light:
        text = re.sub(
            r"<visual>.*?</visual>", lambda found: _lightened(found[0], path.parent, computed), text, flags=re.S
        )
    for name in named:
        file = tip if Path(name).name == TIP else path.parent / name
        text = text.replace(f"package://{name}", file.as_posix())
    copy = written / path.name
    copy.write_text(text, encoding="utf-8")
    return copy


def _lightened(visual: str, folder: Path, tip: Path) -> str:
    """A link's `visual` element with the mesh that the link touches with, where there is one."""
    (name,) = re.findall(r'filename="package://([^"]+)"', visual) or [""]
    if Path(name).name == TIP:
        return visual.replace(f"package://{name}", tip.as_posix())
    touching = folder / name.replace("/visual/", "/collision/")
    return visual.replace(f"package://{name}", touching.as_posix()) if name and touching.is_file() else visual


def _dome() -> meshes.Mesh:
    """A pad with a round head and a domed front, in the fingertip's frame (m)."""
    angles = np.linspace(0.0, np.pi, _ARC_CORNERS)
    head = np.stack([np.cos(angles), np.sin(angles)], axis=1) * _HALF_WIDTH_M + (0.0, _CENTRE_M)
    outline = np.vstack([head, [(-_HALF_WIDTH_M, _FOOT_M), (_HALF_WIDTH_M, _FOOT_M)]])
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    layers = [np.insert(middle + part * (outline - middle), 0, x, axis=1) for x, part in _DOME]
    return meshes.hull(np.vstack(layers))
