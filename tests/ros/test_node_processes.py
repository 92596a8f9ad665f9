"""Processes of nodes, with small Python modules in place of the nodes: how they end, start again and are stopped."""

import sys
import time

import pytest

from deer_ros import graph, node_processes
from deer_ros.node_processes import RESPAWNS, NodeProcesses
from tests.ros.node_rig import wait

NODE = next(iter(graph.BRINGUPS["arm"].nodes))
READING = "import sys; print('up', flush=True); sys.stdin.read()"
# A background job of a shell ignores Ctrl-C, and so would what it starts.
SILENT = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {READING}"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {READING}"
FAILING = "import sys; print('first', flush=True); print('out of cheese', file=sys.stderr); sys.exit(3)"


@pytest.fixture
def processes(tmp_path):
    """`start` runs Python text as the node, and returns its name and how it has ended, once it has written or ended."""

    def start(text):
        (tmp_path / "played.py").write_text(text)
        made.start(NODE, module="played")
        log = tmp_path / "logs" / f"{NODE.name}.log"
        wait(lambda: log.read_text() or made.ended(NODE.name))
        return NODE.name

    made = NodeProcesses(tmp_path / "none.yaml", {}, {"PYTHONPATH": str(tmp_path)}, tmp_path / "logs")
    made.begin = start
    yield made
    made.stop()
    made.close()


def test_a_process_that_ends_says_how_and_its_last_words(processes):
    name = processes.begin(FAILING)
    wait(lambda: processes.ended(name))
    assert processes.ended(name) == f"node {name} ended with status 3: out of cheese"
    name = processes.begin(SILENT)
    assert processes.ended(name) == ""
    processes.running[name].kill()
    wait(lambda: processes.ended(name))
    assert processes.ended(name) == f"node {name} was ended by SIGKILL"


def test_the_processor_time_of_a_process_is_its_own(processes):
    name = processes.begin("while True: print('busy', flush=True)")
    before_s = processes.cpu_s()[name]
    wait(lambda: processes.cpu_s()[name] > before_s + 0.1)
    processes.running[name].kill()
    processes.running[name].wait()
    assert processes.cpu_s() == {}


def test_a_node_that_ends_again_and_again_is_given_up(processes, monkeypatch):
    name = processes.begin(FAILING)
    for _ in range(RESPAWNS):
        wait(lambda: processes.ended(name))
        assert processes.restart(name)
    wait(lambda: processes.ended(name))
    assert not processes.restart(name)
    assert processes.last_words(name) == ": out of cheese"
    monkeypatch.setattr(node_processes, "RESPAWN_WINDOW_S", 1e-3)
    assert processes.restart(name), "what was long ago does not count"


def test_processes_are_asked_to_end_and_then_ended(processes, monkeypatch):
    monkeypatch.setattr(node_processes, "STOP_TIMEOUT_S", 0.5)
    for text, status in ((SILENT, -2), (STUBBORN, -9)):
        name = processes.begin(text)
        began_s = time.monotonic()
        processes.stop()
        assert (time.monotonic() - began_s > 0.4) == (text is STUBBORN)
        # Python tells of an interrupt by 1 or the signal's own status.
        assert processes.running[name].returncode in ({status, 1} if text is SILENT else {status})


def test_a_node_is_run_with_its_parameters(tmp_path):
    made = NodeProcesses(tmp_path / "file.yaml", {NODE.name: {"threads": 3}}, {}, None)
    made.start(NODE, ["--enclave", "/deer/one"], module="this")
    command = made.running[NODE.name].args
    assert command[:3] == [sys.executable, "-m", "this"]
    assert command[4:8] == ["--params-file", str(tmp_path / "file.yaml"), "--enclave", "/deer/one"]
    made.stop()
    with open(command[-1]) as file:
        assert "threads: 3" in file.read()
    made.close()
