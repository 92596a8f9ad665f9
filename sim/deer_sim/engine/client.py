"""Opens pybullet physics clients, without the lines that its native code prints at import and connection."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deer_policies.errors import SimulatorError


def connect() -> Any:
    """A new `pybullet_utils.bullet_client.BulletClient` without a window.

    Raises:
        SimulatorError: if pybullet is not installed.
    """
    try:
        with _native_output_discarded():
            import pybullet
            from pybullet_utils.bullet_client import BulletClient

            return BulletClient(pybullet.DIRECT)
    except ImportError as error:
        raise SimulatorError("the simulator needs pybullet; install it with `pip install 'deer_ros[sim]'`") from error


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
