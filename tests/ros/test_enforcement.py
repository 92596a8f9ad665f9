"""Fast DDS' own security plugins, with our keystore: what the permissions allow goes through, and nothing else does.

The wheels' Fast DDS is built without these plugins; Debian 12's has them: `apt-get install libfastrtps-dev`, or its
packages unpacked (`apt-get download`, `dpkg -x`) in a folder that DEER_FASTDDS names.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deer_ros.bringup import free_domain_id
from deer_ros.cli.main import main

pytest.importorskip("cryptography")

ROOT = Path(os.environ.get("DEER_FASTDDS", "/"))
LIBRARIES = ROOT / "usr" / "lib" / "x86_64-linux-gnu"
INCLUDES = (ROOT / "usr" / "include", ROOT / "usr" / "include" / "x86_64-linux-gnu")
RUN_S = 4.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (LIBRARIES / "libfastrtps.so").exists() or shutil.which("g++") is None,
        reason="no Fast DDS 2 with security to compile against; the first lines of this file say how to get it",
    ),
]


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A program that writes or reads one topic as an enclave."""
    program = tmp_path_factory.mktemp("probe") / "dds_probe"
    source = Path(__file__).with_name("dds_probe.cpp")
    libraries = [f"-l{name}" for name in ("fastrtps", "fastcdr", "foonathan_memory", "tinyxml2", "ssl", "crypto")]
    paths = [f"-L{LIBRARIES}", f"-Wl,-rpath-link,{LIBRARIES}", *(f"-I{path}" for path in INCLUDES)]
    subprocess.run(
        ["g++", "-std=c++14", "-w", str(source), *paths, *libraries, "-lpthread", "-o", str(program)],
        check=True,
        timeout=120,
    )
    return program


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    folder = tmp_path_factory.mktemp("security") / "keys"
    domain = free_domain_id()
    assert main(["security", str(folder), "--bringup", "arm", "--domain-id", str(domain)]) == 0
    return folder, domain


def exchange(probe, keystore, writer, reader, topic):
    """What a writer and a reader of a topic print; None as an enclave is a process without keys."""
    folder, domain = keystore
    running = []
    for role, enclave in (("pub", writer), ("sub", reader)):
        place = "none" if enclave is None else str(folder / "enclaves" / "deer" / enclave)
        command = [str(probe), place, str(domain), role, topic, str(RUN_S)]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    try:
        told = [process.communicate(timeout=30)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return tuple(text.strip() for text in told)


@pytest.mark.parametrize(
    ("writer", "reader", "topic"),
    [
        ("safety", "driver", "rt/arm/twist"),
        ("driver", "recorder", "rt/camera/static/image_raw"),
        ("policy", "safety", "rt/policy/action"),
        ("operator", "policy", "rt/instruction"),
        ("operator", "safety", "rq/safety/stopRequest"),
        ("operator", "policy", "rq/follow_instruction/_action/send_goalRequest"),
    ],
)
def test_what_is_permitted_goes_through(probe, keystore, writer, reader, topic):
    wrote, read = exchange(probe, keystore, writer, reader, topic)
    assert wrote == "matched 1"
    assert int(read.removeprefix("received ")) > 10


@pytest.mark.parametrize(
    ("writer", "reader", "topic"),
    [
        ("policy", "driver", "rt/arm/twist"),
        ("operator", "driver", "rt/arm/twist"),
        ("recorder", "safety", "rt/policy/action"),
        ("recorder", "safety", "rq/safety/armRequest"),
    ],
)
def test_an_enclave_can_not_write_what_it_may_not(probe, keystore, writer, reader, topic):
    assert exchange(probe, keystore, writer, reader, topic) == ("refused", "received 0")


def test_who_has_no_keys_moves_nothing_and_sees_nothing(probe, keystore):
    assert exchange(probe, keystore, None, "driver", "rt/arm/twist") == ("matched 0", "received 0")
    assert exchange(probe, keystore, "driver", None, "rt/camera/static/image_raw") == ("matched 0", "received 0")


def test_keys_of_another_keystore_are_no_keys(probe, keystore, tmp_path):
    folder, domain = keystore
    assert main(["security", str(tmp_path / "other"), "--bringup", "arm", "--domain-id", str(domain)]) == 0
    stranger = os.path.relpath(tmp_path / "other" / "enclaves" / "deer" / "safety", folder / "enclaves" / "deer")
    assert exchange(probe, keystore, stranger, "driver", "rt/arm/twist") == ("matched 0", "received 0")
