"""Keys and certificates: an authority of its own for each keystore, an identity for each enclave, signed documents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from deer_policies.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

AUTHORITY_NAME = "deer_ros authority"
CLOCKS_APART = timedelta(days=1)
"""Certificates are valid from this long before they are made, for machines whose clocks are behind."""


@dataclass(frozen=True)
class Identity:
    """A certificate and the private key that belongs to it."""

    certificate: Certificate
    key: EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """The private key as PEM (PKCS#8, not encrypted: a robot starts without a password)."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authority(days: int) -> Identity:
    """A new certificate authority. Raises ConfigError if `cryptography` is not installed."""
    return _issue(AUTHORITY_NAME, days, None)


def identity(name: str, days: int, issuer: Identity) -> Identity:
    """A new identity with the common name `name`, never valid for longer than its issuer."""
    return _issue(name, days, issuer)


def load(certificate_pem: bytes, key_pem: bytes) -> Identity:
    """Reads an identity. Raises ConfigError if the two don't belong together."""
    _checked_library()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    certificate = load_pem_x509_certificate(certificate_pem)
    key: Any = load_pem_private_key(key_pem, None)
    if key.public_key() != certificate.public_key():
        raise ConfigError("the private key does not belong to the certificate; restore the keystore or make a new one")
    return Identity(certificate, key)


def signed(document: bytes, signer: Identity) -> bytes:
    """The document with its signature, as S/MIME (multipart/signed, text), which DDS Security reads."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

    builder = PKCS7SignatureBuilder().set_data(document).add_signer(signer.certificate, signer.key, SHA256())
    return builder.sign(Encoding.SMIME, [PKCS7Options.Text, PKCS7Options.DetachedSignature])


def _issue(name: str, days: int, issuer: Identity | None) -> Identity:
    """Elliptic curve keys on P-256, which DDS Security's plugins know (section 9.3.1)."""
    _checked_library()
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    last = now + timedelta(days=days)
    if issuer is not None:
        last = min(last, issuer.certificate.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(last)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), True)
        .sign(key if issuer is None else issuer.key, SHA256())
    )
    return Identity(certificate, key)


def _checked_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ConfigError("making keys needs the package cryptography: pip install 'deer_ros[security]'") from error
