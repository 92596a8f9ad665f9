"""How a process is started within its enclave: environment and arguments; anything that is missing is told before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deer_policies.errors import ConfigError
from deer_ros.endpoints import OPERATOR
from deer_ros.security.enclaves import checked_namespace, enclave_path
from deer_ros.security.keystore import ENCLAVE_FILES, ENCLAVES

KEYSTORE, ENABLE, STRATEGY = "ROS_SECURITY_KEYSTORE", "ROS_SECURITY_ENABLE", "ROS_SECURITY_STRATEGY"
OVERRIDE = "ROS_SECURITY_ENCLAVE_OVERRIDE"


def environment(keystore: Path) -> dict[str, str]:
    """Variables with which ROS 2 takes part only with keys, and only in what its permissions say."""
    return {KEYSTORE: str(keystore.resolve()), ENABLE: "true", STRATEGY: "Enforce"}


@contextmanager
def entered(keystore: Path | None) -> Iterator[None]:
    """Gives this process that environment while it makes a ROS context; None changes nothing."""
    wanted = {} if keystore is None else environment(keystore)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def arguments(keystore: Path, name: str, namespace: str = "") -> list[str]:
    """ROS arguments (after --ros-args) that put a node into its enclave.

    Raises:
        ConfigError: if the keystore lacks the enclave or a file of it.
    """
    path = enclave_path(name, checked_namespace(namespace))
    place = keystore / ENCLAVES / path.lstrip("/")
    if missing := [file for file in ENCLAVE_FILES if not (place / file).is_file()]:
        raise ConfigError(f"{place} lacks {', '.join(missing)}; make the keystore with `deer security {keystore}`")
    return ["--enclave", path]


def client_arguments(given: Mapping[str, str] = os.environ) -> list[str]:
    """ROS arguments of a client: the operator's enclave if this process' environment turns security on.

    ROS_SECURITY_ENCLAVE_OVERRIDE names another one, for a namespace or another identity.
    """
    if given.get(ENABLE) != "true":
        return []
    if OVERRIDE in given:
        return ["--ros-args", "--enclave", given[OVERRIDE]]
    if not given.get(KEYSTORE):
        raise ConfigError(f"{ENABLE} is true but {KEYSTORE} is not set; set it to the folder of `deer security`")
    return ["--ros-args", *arguments(Path(given[KEYSTORE]), OPERATOR)]
