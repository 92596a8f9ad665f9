"""Writes a keystore in the layout of `ros2 security`: public/, private/ and enclaves/<path>/."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from deer_policies.errors import ConfigError
from deer_ros.security import certificates
from deer_ros.security.certificates import Identity
from deer_ros.security.enclaves import Enclave, policy_xml
from deer_ros.security.permissions import governance_xml, permissions_xml

MAX_DOMAIN_ID = 232
MAX_DAYS = 36500
ENCLAVES, PUBLIC, PRIVATE = "enclaves", "public", "private"
POLICY_FILE = "policy.xml"
ENCLAVE_FILES = (
    *("cert.pem", "key.pem", "identity_ca.cert.pem", "permissions_ca.cert.pem"),
    *("governance.p7s", "permissions.p7s"),
)
"""What a process reads of its enclave."""


@dataclass(frozen=True)
class KeystoreSettings:
    """What a keystore is for.

    Attributes:
        domain_id: ROS domain in which its permissions hold.
        days: how long new certificates, and with them permissions, are valid.
    """

    domain_id: int
    days: int

    def __post_init__(self) -> None:
        if not 0 <= self.domain_id <= MAX_DOMAIN_ID:
            raise ConfigError(f"domain_id is {self.domain_id}; it must be in 0..{MAX_DOMAIN_ID}")
        if not 1 <= self.days <= MAX_DAYS:
            raise ConfigError(f"days is {self.days}; it must be in 1..{MAX_DAYS}")


def create(folder: Path, granted: tuple[Enclave, ...], settings: KeystoreSettings) -> None:
    """Makes a new keystore. Raises ConfigError if there is something in the folder already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not empty; choose another folder, or give --renew-permissions to write the permissions of "
            "the keystore there anew and keep its keys"
        )
    made = certificates.authority(settings.days)
    for name, mode in ((".", 0o755), (PUBLIC, 0o755), (PRIVATE, 0o700), (ENCLAVES, 0o755)):
        (folder / name).mkdir(mode=mode, parents=True, exist_ok=True)
    _write(folder / PUBLIC / "ca.cert.pem", made.certificate_pem())
    _write(folder / PRIVATE / "ca.key.pem", made.key_pem(), private=True)
    for use in ("identity_ca", "permissions_ca"):
        (folder / PUBLIC / f"{use}.cert.pem").symlink_to("ca.cert.pem")
        (folder / PRIVATE / f"{use}.key.pem").symlink_to("ca.key.pem")
    renew(folder, granted, settings)


def renew(folder: Path, granted: tuple[Enclave, ...], settings: KeystoreSettings) -> None:
    """Writes governance and permissions anew; keys are kept, and enclaves that are new get theirs.

    Raises:
        ConfigError: if there is no keystore, or its private keys are elsewhere.
    """
    identities, permissions = (_authority(folder, use) for use in ("identity_ca", "permissions_ca"))
    governance = governance_xml(settings.domain_id)
    _write(folder / ENCLAVES / "governance.xml", governance)
    _write(folder / ENCLAVES / "governance.p7s", certificates.signed(governance, permissions))
    for enclave in granted:
        place = folder / ENCLAVES / enclave.path.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        own = _identity(place, enclave, settings, identities)
        for name, target in (
            ("identity_ca.cert.pem", folder / PUBLIC / "identity_ca.cert.pem"),
            ("permissions_ca.cert.pem", folder / PUBLIC / "permissions_ca.cert.pem"),
            ("governance.p7s", folder / ENCLAVES / "governance.p7s"),
        ):
            if not (place / name).is_symlink():
                (place / name).symlink_to(os.path.relpath(target, place))
        valid = own.certificate.not_valid_before_utc, own.certificate.not_valid_after_utc
        document = permissions_xml(enclave, settings.domain_id, *valid)
        _write(place / "permissions.xml", document)
        _write(place / "permissions.p7s", certificates.signed(document, permissions))
    _write(folder / POLICY_FILE, policy_xml(granted))


def _identity(place: Path, enclave: Enclave, settings: KeystoreSettings, issuer: Identity) -> Identity:
    """The enclave's own, which is made if there is none yet."""
    certificate, key = place / "cert.pem", place / "key.pem"
    if certificate.is_file() and key.is_file():
        return certificates.load(certificate.read_bytes(), key.read_bytes())
    own = certificates.identity(enclave.path, settings.days, issuer)
    _write(certificate, own.certificate_pem())
    _write(key, own.key_pem(), private=True)
    return own


def _authority(folder: Path, use: str) -> Identity:
    certificate, key = folder / PUBLIC / f"{use}.cert.pem", folder / PRIVATE / f"{use}.key.pem"
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigError(f"there is no {path}; permissions are signed where the keystore's private keys are kept")
    return certificates.load(certificate.read_bytes(), key.read_bytes())


def _write(path: Path, content: bytes, private: bool = False) -> None:
    """Writes a file as a whole or not at all; a private one is its owner's alone from its first byte on."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644), "wb") as file:
        file.write(content)
    part.replace(path)
