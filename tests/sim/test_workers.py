"""Worker processes: they begin with their start function, drop what has not begun, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deer_sim.workers import worker_pool

SCRIPT = """
import os, time
from pathlib import Path
from deer_sim.workers import worker_pool

def start(folder):
    (Path(folder) / f"{os.getpid()}.pid").touch()

if __name__ == "__main__":
    with worker_pool(2, start, (FOLDER,)) as pool:
        jobs = [pool.submit(time.sleep, 600.0) for _ in range(2)]
        jobs[0].result()
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected by its new parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.replace("FOLDER", repr(str(tmp_path))))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        assert wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 120.0)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    try:
        assert wait_for(lambda: not any(alive(pid) for pid in workers), 20.0)
    finally:
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)


def test_leaving_the_block_drops_work_that_has_not_begun() -> None:
    with worker_pool(1) as pool:
        first = pool.submit(os.getpid)
        waiting = [pool.submit(time.sleep, 0.5) for _ in range(40)]
        assert first.result() != os.getpid()
    assert any(job.cancelled() for job in waiting)
