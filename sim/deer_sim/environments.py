"""Makes an environment from its name: `playtable:D`, or `calvin:D` with CALVIN's scene data."""

from __future__ import annotations

from pathlib import Path

from deer_policies.errors import ConfigError
from deer_sim.environment import Environment

FAMILIES = ("playtable", "calvin")
BACKENDS = ("deer_sim", "calvin_env")
"""What runs a scene: our engine, or CALVIN's own package, which knows only its own scenes."""
RENDERERS = ("tiny", "light", "egl")
"""What draws pictures: pybullet's TinyRenderer on the CPU, the same with a coarser and quicker arm, or OpenGL, which
CALVIN's datasets were drawn with."""


def split_name(name: str) -> tuple[str, str]:
    """The family and the scene of an environment's name.

    Raises:
        ConfigError: if it is not of the form FAMILY:SCENE with a known family.
    """
    family, colon, scene = name.partition(":")
    if not colon or not scene or family not in FAMILIES:
        allowed = " or ".join(f"{each}:D" for each in FAMILIES)
        raise ConfigError(f"unknown environment {name!r}; write {allowed}, with any scene's letter")
    return family, scene


def make_environment(
    name: str,
    cameras: bool = True,
    calvin_data: Path | None = None,
    backend: str = BACKENDS[0],
    renderer: str = RENDERERS[0],
) -> Environment:
    """Builds the environment of that name.

    Args:
        name: FAMILY:SCENE, such as 'playtable:D' (our own table) or 'calvin:D' (CALVIN's official scene).
        cameras: whether time steps carry pictures; without them a step takes a fraction of the time.
        calvin_data: folder with CALVIN's `conf` and `data`; None: the one that the variable CALVIN_DATA names, or where
            the package `calvin_env` lies. Only the family 'calvin' reads it.
        backend: one of BACKENDS.
        renderer: one of RENDERERS; the play table knows only the first.

    Raises:
        ConfigError: if the name is malformed, or the back end or the renderer is unknown or not for these scenes.
        SimulatorError: if there is no such scene, its data is missing, or a package or OpenGL can't be used.
    """
    family, scene = split_name(name)
    if backend not in BACKENDS:
        raise ConfigError(f"unknown back end {backend!r}; allowed: {', '.join(BACKENDS)}")
    if renderer not in RENDERERS:
        raise ConfigError(f"unknown renderer {renderer!r}; allowed: {', '.join(RENDERERS)}")
    if family == "calvin":
        from deer_sim.calvin.environment import CalvinTable
        from deer_sim.calvin.official import OfficialTable
        from deer_sim.engine.cameras import EGL, TINY

        drawn_by = EGL if renderer == "egl" else TINY
        if backend == "deer_sim":
            return CalvinTable(scene, calvin_data, cameras, renderer=drawn_by, light_arm=renderer == "light")
        if renderer == "light":
            raise ConfigError("the package calvin_env draws no light arm; use the back end deer_sim for it")
        return OfficialTable(scene, calvin_data, cameras, renderer=drawn_by)
    for what, asked, only in (("back end", backend, BACKENDS[0]), ("renderer", renderer, RENDERERS[0])):
        if asked != only:
            raise ConfigError(f"{name} has no {what} {asked}, only {only}; calvin:{scene} has it")
    from deer_sim.playtable.environment import PlayTable

    return PlayTable(scene, cameras)
