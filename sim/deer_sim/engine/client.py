"""Opens pybullet physics clients, with OpenGL if wanted, and without the lines that its native code prints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from deer_policies.errors import SimulatorError

_PLUGIN = "_eglRendererPlugin"
_PROBE = """
import pybullet, sys
pybullet.connect(pybullet.DIRECT, options="--width=8 --height=8")
sys.exit(0 if pybullet.loadPlugin(sys.argv[1], sys.argv[2]) >= 0 else 1)
"""
_PROBE_LIMIT_S = 60


def connect(egl_size: tuple[int, int] | None = None) -> Any:
    """A new `pybullet_utils.bullet_client.BulletClient` without a window.

    Args:
        egl_size: columns and rows of the largest picture that OpenGL is to draw; None: it is not used.

    Raises:
        SimulatorError: if pybullet is not installed, or OpenGL can't be used.
    """
    try:
        with _native_output_discarded():
            import pybullet
            from pybullet_utils.bullet_client import BulletClient

            if egl_size is None:
                return BulletClient(pybullet.DIRECT)
            plugin = _egl_plugin()
            columns, rows = egl_size
            client = BulletClient(pybullet.DIRECT, options=f"--width={columns} --height={rows}")
            client.loadPlugin(plugin, _PLUGIN)
            return client
    except ImportError as error:
        raise SimulatorError("the simulator needs pybullet; install it with `pip install 'deer_ros[sim]'`") from error


@lru_cache(maxsize=1)
def _egl_plugin() -> str:
    """pybullet's plugin for OpenGL without a window, tried in a process of its own since it may crash."""
    found = find_spec("eglRenderer")
    if found is not None and found.origin is not None:
        probe = [sys.executable, "-c", _PROBE, found.origin, _PLUGIN]
        if subprocess.run(probe, capture_output=True, timeout=_PROBE_LIMIT_S).returncode == 0:
            return found.origin
    raise SimulatorError(
        "OpenGL can't be used without a window; install libegl1, libegl-mesa0 and libgl1-mesa-dri (Debian's names), "
        "or use the TinyRenderer"
    )


@contextmanager
def _native_output_discarded() -> Iterator[None]:
    """Points the process's standard output and error to nowhere; Python's own streams are flushed before and after."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    try:
        for descriptor, _ in kept:
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)
