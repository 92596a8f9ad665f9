"""Runs one node as a process: starts it, spins it on a single thread, and ends it cleanly whatever stops it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from deer_policies.errors import DeerError
from deer_ros import network
from deer_ros.errors import StackError

if TYPE_CHECKING:
    from rclpy.node import Node

STOP_WITH_STDIN = "DEER_STOP_WITH_STDIN"
"""Environment variable: if '1', the process ends when its standard input closes, that is, when its parent is gone."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 1024 * 1024
"""Of malloc.h; glibc takes no greater threshold."""


def run(make_node: Callable[[], Node], args: list[str] | None = None) -> int:
    """Runs the node until a signal or a shutdown ends it. Returns the exit status: 2 for settings that can't work.

    A signal that arrives between two waits of the executor leaves an invalid context, which rclpy reports as RCLError;
    that is an ordinary end as well.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    _keep_memory()
    if os.environ.get(STOP_WITH_STDIN) == "1":
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    node = None
    try:
        _start(args)
        node = make_node()
        network.refuse_wide_sockets()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except DeerError as error:
        print(error, file=sys.stderr)
        return 2
    except rclpy_implementation.RCLError:
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _start(args: list[str] | None) -> None:
    """Starts ROS. Raises StackError if it does not let this process take part, as with keys that are missing."""
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation

    try:
        rclpy.init(args=args)
    except rclpy_implementation.RCLError as error:
        raise StackError(f"ROS 2 does not let this process take part: {error}") from error


def _keep_memory() -> None:
    """Lets the allocator keep what large images are put into, instead of getting fresh pages for each one.

    By default glibc gives blocks of an image's size back to the system when they are freed; getting them again, page by
    page, takes longer than everything else that is done with an image of 480 x 640.
    """
    import ctypes

    with contextlib.suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 8 * _LARGEST_KEPT)


def _stop_with_stdin() -> None:
    """Waits for the end of standard input, then asks this process to end.

    It reads the descriptor itself: a thread inside Python's buffered reader would disturb the interpreter's end.
    """
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
