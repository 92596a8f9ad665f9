"""Where CALVIN's scene data and recordings lie on this machine, for the tests that need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deer_sim.calvin.arm import has_official_tips
from deer_sim.calvin.data import default_data

SHARED = Path(__file__).resolve().parents[3] / "shared"
SCENES = SHARED / "calvin_scenes"
GOLDEN = SHARED / "golden" / "calvin"


def complete_data() -> Path:
    """A git clone of calvin_env, or skips: only it holds the fingertips' mesh, which exact replays need."""
    for place in (default_data(), SCENES):
        if place is not None and place.is_dir() and has_official_tips(place):
            return place
    pytest.skip("needs a git clone of https://github.com/mees/calvin_env; name it in the variable CALVIN_DATA")


def some_data() -> Path:
    """Scene data, with or without the fingertips' mesh, or skips."""
    for place in (default_data(), SCENES):
        if place is not None and place.is_dir():
            return place
    pytest.skip(f"needs CALVIN's scene data in {SCENES}, or a git clone of calvin_env in the variable CALVIN_DATA")


def recording(name: str) -> Path:
    """A recorded trajectory, or skips."""
    path = GOLDEN / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"needs the recorded trajectories in {GOLDEN}")
    return path
